//! `/debug/pprof`, of a process of its own.

use std::io::Read;
use std::time::Duration;

use apiserver::profile::Profile;
use prost::Message;
use rpc::api_v1::GetPathRequest;
use serde_json::json;

use crate::server::{Rest, Server};

const PROFILE: &str = "/debug/pprof/profile?seconds=1";
/// How much more the server may have allocated after a profile than before, in bytes.
const MORE: usize = 4 << 20;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A profile of one second, in which the server is busy.
async fn busy_second(user: &Rest) -> (http::response::Parts, bytes::Bytes) {
    let work = async {
        for number in 0.. {
            let name = format!("busy-{number}");
            let object = json!({"metadata": {"name": name}, "data": {"a": "b".repeat(9999)}});
            user.post(CONFIG_MAPS, &object).await.expect(201);
            user.get(CONFIG_MAPS).await.expect(200);
        }
    };
    tokio::select! {
        answer = user.exchange("GET", PROFILE, &[], Vec::new()) => answer,
        () = work => unreachable!("the work does not end"),
    }
}

fn decode(body: &[u8]) -> Profile {
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(body).read_to_end(&mut message).unwrap();
    Profile::decode(&*message).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_names_the_functions_that_were_busy() {
    let server = Server::spawn(&[]).await;
    let (head, body) = busy_second(&server.admin()).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["content-type"], "application/octet-stream");
    assert_eq!(head.headers["content-disposition"], "attachment; filename=\"profile\"");

    let profile = decode(&body);
    let text = |index: i64| &*profile.string_table[usize::try_from(index).unwrap()];
    let types: Vec<_> =
        profile.sample_type.iter().map(|one| (text(one.r#type), text(one.unit))).collect();
    assert_eq!(types, [("samples", "count"), ("cpu", "nanoseconds")]);
    assert_eq!((text(0), profile.period), ("", 10_000_000));
    assert!(profile.duration_nanos >= 1_000_000_000, "{}", profile.duration_nanos);
    assert!(text(profile.mapping[0].filename).ends_with("/skiff-apiserver"));

    let mut samples = 0;
    let mut ours = 0;
    for sample in &profile.sample {
        assert_eq!(sample.value[1], sample.value[0] * profile.period);
        samples += sample.value[0];
        let mut names = sample.location_id.iter().map(|id| {
            let location = &profile.location[usize::try_from(*id).unwrap() - 1];
            let line = location.line[0].function_id;
            let function = &profile.function[usize::try_from(line).unwrap() - 1];
            assert_eq!((location.id, location.mapping_id, function.id), (*id, 1, line));
            text(function.name)
        });
        let innermost = names.next().unwrap_or_default();
        assert!(!innermost.contains("on_signal"), "{innermost}");
        ours += sample.value[0] * i64::from(names.any(|name| name.contains("apiserver::")));
    }
    assert!(samples >= 10, "{samples} samples");
    assert!(
        ours * 4 >= samples,
        "{ours} of {samples} samples are ours: {:?}",
        profile.string_table
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_leaves_no_memory_behind() {
    let server = Server::spawn(&[]).await;
    let user = server.admin();
    let busy = async |path| {
        let work = async {
            loop {
                user.get(CONFIG_MAPS).await.expect(200);
            }
        };
        tokio::select! {
            answer = user.get(path) => answer.code,
            () = work => unreachable!("the work does not end"),
        }
    };
    // The caches of connections and requests fill up first.
    while busy("/debug/pprof/cmdline").await != 200 {}
    let before = server.allocated();
    for _ in 0..3 {
        assert_eq!(busy(PROFILE).await, 200);
    }
    let most = server.allocated();
    let until = clock::instant() + Duration::from_secs(20);
    while server.allocated() > before + MORE {
        assert!(clock::instant() < until, "{before}, {most}, and still {}", server.allocated());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_profile_is_taken_at_a_time_and_for_no_client_that_has_gone() {
    let server = Server::spawn(&[]).await;
    let admin = server.admin();
    let client = admin.clone();
    let first = tokio::spawn(async move {
        // Until it is the one that is taken.
        while client.get("/debug/pprof/profile?seconds=300").await.code == 500 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let second = loop {
        let answer = admin.get(PROFILE).await;
        if answer.code != 200 {
            break answer;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(second.code, 500);
    assert_eq!(second.text, "Could not enable CPU profiling: cpu profiling already in use\n");
    assert_eq!(second.headers["x-go-pprof"], "1");
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let stopped = async {
        while admin.get(PROFILE).await.code != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), stopped).await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_are_for_those_who_may_and_for_what_there_is() {
    let server = Server::spawn(&[]).await;
    let admin = server.admin();
    for user in [server.rest_anonymous(), server.rest_as("prometheus", &["system:monitoring"])] {
        for path in ["/debug/pprof/", "/debug/pprof/cmdline", PROFILE] {
            user.get(path).await.expect(403);
        }
    }
    let index = admin.get("/debug/pprof/").await;
    assert_eq!(index.code, 200);
    assert_eq!(index.headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(admin.get("/debug/pprof").await.text, index.text);
    assert!(index.text.contains("<a href=\"/debug/pprof/profile\">"), "{}", index.text);
    let arguments = admin.get("/debug/pprof/cmdline").await.text;
    assert!(arguments.split('\0').any(|one| one == "--log-level=error"), "{arguments:?}");
    for seconds in ["0", "-1", "301", "1.5", "ten"] {
        let answer = admin.get(&format!("/debug/pprof/profile?seconds={seconds}")).await;
        let expected = (400, "seconds has to be a number from 1 to 300\n");
        assert_eq!((answer.code, &*answer.text), expected, "{seconds}");
    }
    for name in ["heap", "goroutine", "trace"] {
        let answer = admin.get(&format!("/debug/pprof/{name}")).await;
        assert_eq!(answer.code, 501);
        assert!(answer.text.contains("describes Go's runtime"), "{}", answer.text);
    }
    let unknown = admin.get("/debug/pprof/other").await;
    assert_eq!((unknown.code, &*unknown.text), (404, "Unknown profile\n"));
    admin.post("/debug/pprof/profile", &json!({})).await.expect(405);

    let mut grpc = server.grpc();
    let mut get = async |path: &str| {
        let request = GetPathRequest { path: path.to_owned(), ..GetPathRequest::default() };
        grpc.get_path(request).await.map(tonic::Response::into_inner)
    };
    assert_eq!(get("/debug/pprof/").await.unwrap().body, index.text.as_bytes());
    let refused = get("/debug/pprof/heap").await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    assert!(refused.message().contains("describes Go's runtime"), "{refused}");
    assert!(!decode(&get(PROFILE).await.unwrap().body).string_table.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn profiles_can_be_turned_off() {
    let server = Server::spawn(&["--profiling=false"]).await;
    for path in ["/debug/pprof", "/debug/pprof/", "/debug/pprof/heap", PROFILE] {
        server.admin().get(path).await.expect(404);
    }
    server.stop().await;
}
