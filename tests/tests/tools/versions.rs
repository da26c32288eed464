//! Clients of several versions: a table of commands is run with every kubectl there is, from the one
//! that Debian has to the one of the API's level, and what does not depend on the client has to be
//! the same with all of them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, bail, ensure};
use testkit::suite::Fixture;
use testkit::tools;
use tests::web;

use super::parity::{Mask, words};
use super::port_forward::Forward;

const MANIFESTS: [(&str, &str); 7] = [
    ("web.yaml", include_str!("versions/web.yaml")),
    ("crd.yaml", include_str!("versions/crd.yaml")),
    (
        "boat.yaml",
        "apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {name: one}\nspec: {oars: 3}\n",
    ),
    (
        "map.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, labels: {app: map}}\ndata: {a: one, b: two}\n",
    ),
    (
        "changed.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, labels: {app: map}}\ndata: {a: uno, b: two}\n",
    ),
    (
        "role.yaml",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reconciled, namespace: NAMESPACE}\n\
         rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n",
    ),
    (
        "bad.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 70000}]}\n",
    ),
];

/// A line is a command, what is special about it before a colon, and after `=>` a text that it
/// prints. `=`: its output and errors are the same with all clients; `!`: it fails; a number: the
/// oldest client that has it, or after `-` the newest.
const SERVED: &str = r#"
: version => v1.37.0+skiff
: cluster-info => running at
=: api-versions
=: api-resources
27 =: api-resources --verbs=list,get -o wide
: explain deployment.spec.replicas => <integer>
: explain pod.spec.containers --recursive => imagePullPolicy
"#;

/// Like [`SERVED`], with objects of built-in kinds.
const OBJECTS: &str = r#"
27 !: diff -f map.yaml => +  a: one
27 =: apply -f map.yaml --dry-run=server => configmap/m created (server dry run)
=: apply -f map.yaml --dry-run=client
=: apply -f map.yaml => created
=: apply -f map.yaml => unchanged
27 !: diff -f changed.yaml => +  a: uno
=: apply -f changed.yaml => configured
=: apply --server-side -f changed.yaml => serverside-applied
=: patch cm m --field-manager=other -p '{"data":{"a":"other"}}' => patched
27 !: apply --server-side -f changed.yaml => .data.a
=: apply --server-side --force-conflicts -f changed.yaml
=: apply view-last-applied cm/m
27 : get cm m -o yaml --show-managed-fields => manager: kubectl
: edit cm m => edited
=: patch cm m --type=strategic -p '{"data":{"b":"three"}}'
=: patch cm m --type=merge -p '{"data":{"b":null,"d":"four"}}'
=: patch cm m --type=json -p '[{"op":"replace","path":"/data/d","value":"five"}]'
27 =!: patch cm m --type=json -p '[{"op":"test","path":"/data/d","value":"six"}]' => The request is invalid: the server rejected our request due to an error in our request
=: get cm m -o jsonpath={.data} => {"a":"edited","d":"five"}
=: label cm m x=y
=!: label cm m x=z => --overwrite is false
=: label cm m x=z --overwrite
: annotate cm m note=hello => configmap/m annotate
=: get cm -l x=z -o name => configmap/m
=: get cm --field-selector=metadata.name=m --show-labels
=: describe secret -l none=none
=: replace -f map.yaml
: replace --force -f map.yaml => replaced
=: create deployment d --image=none --replicas=0 --port=80
=: scale deploy d --replicas=0 --current-replicas=0
27 : patch deploy d --subresource=scale --type=merge -p '{"spec":{"replicas":0}}' => scale.autoscaling/d patched
: autoscale deploy d --min=1 --max=3 --cpu-percent=50 => autoscaled
=: get hpa d -o jsonpath={.spec.maxReplicas} => 3
: delete hpa d => deleted
=: expose deploy d
=: set image deploy/d none=other
=: set env deploy/d A=b
=: set resources deploy/d --limits=memory=64Mi
=: rollout pause deploy/d
=: rollout resume deploy/d
=: rollout restart deploy/d
=: create ingress i --rule=a.example.com/*=d:80
=: create quota q --hard=configmaps=100
=: create service clusterip e --tcp=80
=: create configmap k --from-file=boat.yaml
=: create secret generic s --from-literal=a=b
27 =: create cronjob c --image=none --schedule=@hourly --dry-run=server
27 =: create poddisruptionbudget p --selector=app=none --min-available=1
!-26: create poddisruptionbudget p --selector=app=none --min-available=1 => policy/v1beta1
=: get deploy,svc,ingress,quota,secret -o name
: describe deploy d => StrategyType:
: describe ns NAMESPACE => Active
=: create role r --verb=get,list --resource=configmaps
=: create rolebinding r --role=r --user=jane
: auth reconcile -f role.yaml => reconciled
=: auth can-i create pods => yes
=!: auth can-i create pods --as=jane => no
=: auth can-i get configmaps --as=jane => yes
: auth can-i --list --as=jane => configmaps
33 =: auth whoami => kubernetes-admin
=: get cm -o name --as=jane
=!: get deploy --as=jane => deployments.apps is forbidden: User "jane" cannot list resource "deployments"
=!: delete deploy d --as=jane
=: create serviceaccount robot
27 : create token robot => eyJ
=!: create -f bad.yaml => spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive
=!: apply -f bad.yaml
=!: get cm nope => configmaps "nope" not found
=!: get nope
=!: delete cm nope
=!: certificate approve nope
: delete deploy,svc --all => deleted
: delete -f map.yaml => deleted
"#;

/// Like [`SERVED`], with a custom kind, which belongs to one client at a time.
const CUSTOM: &str = r#"
=: apply -f crd.yaml
=: wait --for=condition=Established crd/boats.sea.example.com --timeout=30s
: api-resources --api-group=sea.example.com => boats
: apply -f boat.yaml => created
: apply -f boat.yaml => unchanged
: apply --server-side --force-conflicts -f boat.yaml => serverside-applied
: get boats => OARS
: explain boats.spec => How many oars.
: describe boat one => Oars:
=!: patch boat one --type=merge -p '{"spec":{"oars":0}}' => spec.oars in body should be greater than or equal to 1
!: patch boat one -p '{"spec":{"oars":5}}' => the body of the request was in an unknown format
: scale boat one --replicas=4 => scaled
: get boat one -o jsonpath={.spec.oars} => 4
27 : get boat one --subresource=scale -o jsonpath={.spec.replicas} => 4
: delete boat one => deleted
: delete crd boats.sea.example.com => deleted
"#;

/// Like [`SERVED`], with pods.
const PODS: &str = r#"
=: apply -f web.yaml
: rollout status deploy/web --timeout=90s => successfully rolled out
=: wait --for=condition=Ready pod/shell --timeout=90s
=: wait --for=condition=Available deploy/web --timeout=60s
27 =: wait --for=jsonpath={.status.readyReplicas}=1 deploy/web --timeout=60s
=!: wait --for=condition=Nope deploy/web --timeout=1s
: get pods -o wide => Running
: get all => service/web
=: get pods --field-selector=status.phase=Running -o name
: get events => Started
: describe pod shell => PodReadyToStartContainers
: describe svc web => Endpoints:
: describe node => Allocated resources:
=: exec shell -- echo hi => hi
=!: exec shell -- sh -c 'exit 3' => command terminated with exit code 3
=!: exec nope -- echo hi => pods "nope" not found
=: logs shell => started
=: logs deploy/web --tail=1 => serving on port 8080
!: logs shell -c nope => nope
=: cp boat.yaml shell:/tmp/boat.yaml
=: exec shell -- cat /tmp/boat.yaml => kind: Boat
: cp shell:/tmp/boat.yaml back.yaml
: run once --image=skiff.test/busybox:1 --restart=Never --attach --rm --quiet -- sh -c 'for i in 1 2 3 4 5; do echo from a pod; sleep 1; done' => from a pod
27 : debug shell --image=skiff.test/busybox:1 --attach --quiet -- sh -c 'for i in 1 2 3 4 5; do echo debugged; sleep 1; done' => debugged
=: create job j --image=skiff.test/busybox:1 -- true
=: wait --for=condition=complete job/j --timeout=90s
=: set image deploy/web main=skiff.test/testserver:v2
: rollout status deploy/web --timeout=90s => successfully rolled out
=: rollout history deploy/web
: rollout undo deploy/web => rolled back
: rollout status deploy/web --timeout=90s => successfully rolled out
=: get deploy web -o jsonpath={.spec.template.spec.containers[0].image} => skiff.test/testserver:v1
"#;

/// Like [`SERVED`], with a node, which belongs to one client at a time.
const NODE: &str = r#"
=: taint nodes node-2 a=b:PreferNoSchedule
=: taint nodes node-2 a-
=: cordon node-2
=: get nodes --no-headers => SchedulingDisabled
: drain node-2 --ignore-daemonsets --force --delete-emptydir-data --timeout=90s --pod-selector=client=NAMESPACE => evicted
=: get pods -l client=NAMESPACE --field-selector=spec.nodeName=node-2
=: uncordon node-2
: top nodes => node-2
: delete pod shell --timeout=60s => deleted
27 : wait --for=delete pod/shell --timeout=30s
: delete deploy web --cascade=orphan => deleted
=: get rs -o name => replicaset.apps/web
: delete rs --all => deleted
: delete all --all --timeout=60s
"#;

/// A client, with a namespace and a folder of its own.
struct Client<'a> {
    fixture: &'a Fixture,
    minor: u32,
    program: PathBuf,
    namespace: String,
    folder: PathBuf,
}

/// One line of a table.
struct Line<'a> {
    text: &'a str,
    minors: std::ops::RangeInclusive<u32>,
    fails: bool,
    is_same: bool,
    words: Vec<String>,
    shows: &'a str,
}

impl<'a> Line<'a> {
    fn read(text: &'a str) -> anyhow::Result<Self> {
        let (special, command) = text.split_once(": ").with_context(|| text.to_owned())?;
        let (command, shows) = command.split_once(" => ").unwrap_or((command, ""));
        let number = |text: &str| -> anyhow::Result<Option<u32>> {
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            Ok(if digits.is_empty() { None } else { Some(digits.parse()?) })
        };
        let (first, last) = special.split_once('-').unwrap_or((special, ""));
        Ok(Self {
            text,
            minors: number(first)?.unwrap_or(0)..=number(last)?.unwrap_or(u32::MAX),
            fails: special.contains('!'),
            is_same: special.contains('='),
            words: words(command),
            shows,
        })
    }
}

impl Client<'_> {
    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        let words: Vec<String> =
            words.iter().map(|word| word.replace("NAMESPACE", &self.namespace)).collect();
        // Flags end at `--`.
        let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
        command.args(&words[..end]).args(["-n", &self.namespace]).args(&words[end..]);
        command
            .env("KUBECONFIG", self.fixture.cluster.kubeconfig())
            // Clients of other versions have other caches.
            .env("HOME", &self.folder)
            .env("KUBE_EDITOR", "sed -i 's/a: [a-z]*$/a: edited/'")
            .current_dir(&self.folder)
            .stdin(Stdio::null());
        command
    }

    /// Runs a table; returns what is the same with all clients.
    fn run(&self, table: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let mask = Mask::new(&[self.namespace.as_str()])?;
        let mut printed = BTreeMap::new();
        for (number, text) in table.lines().filter(|line| !line.is_empty()).enumerate() {
            let line = Line::read(text)?;
            if !line.minors.contains(&self.minor) {
                continue;
            }
            let output = self.command(&line.words).output()?;
            let both = [output.stdout, output.stderr].concat();
            let both = String::from_utf8_lossy(&both).into_owned();
            let is_expected = output.status.success() != line.fails && both.contains(line.shows);
            ensure!(is_expected, "1.{}: {}: {}: {both}", self.minor, line.text, output.status);
            if line.is_same {
                printed.insert(format!("{number:03} {}", line.text), mask.apply(&both));
            }
        }
        Ok(printed)
    }
}

/// Every kubectl, by minor version: the one that other tests run, and `kubectl-1.N` beside it.
fn kubectls(fixture: &Fixture) -> anyhow::Result<BTreeMap<u32, PathBuf>> {
    let own = PathBuf::from(tools::kubectl());
    let mut all = BTreeMap::from([(fixture.cluster.kubectl_minor()?, own.clone())]);
    let Some(folder) = own.parent().filter(|folder| folder.is_dir()) else {
        return Ok(all);
    };
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(minor) = name.strip_prefix("kubectl-1.") {
            all.insert(minor.parse().with_context(|| name.clone())?, path);
        }
    }
    Ok(all)
}

/// Clients of all versions, with their namespaces and files.
fn clients(fixture: &Fixture) -> anyhow::Result<Vec<Client<'_>>> {
    let mut clients = Vec::new();
    for (minor, program) in kubectls(fixture)? {
        let namespace = format!("{}-v{minor}", fixture.namespace);
        let folder = fixture.cluster.folder().join(&namespace);
        std::fs::create_dir_all(&folder)?;
        for (name, text) in MANIFESTS {
            std::fs::write(folder.join(name), text.replace("NAMESPACE", &namespace))?;
        }
        fixture.cluster.kubectl(&["create", "namespace", &namespace])?;
        clients.push(Client { fixture, minor, program, namespace, folder });
    }
    Ok(clients)
}

/// Runs a table with all clients, several at once if they do not get in each other's way, and
/// compares what they print.
fn run(clients: &[Client<'_>], table: &str, at_once: bool) -> anyhow::Result<()> {
    let queue = Mutex::new(clients.iter());
    let lane = || {
        let next = || queue.lock().expect("no lane panics").next();
        std::iter::from_fn(next)
            .map(|client| Ok((client.minor, client.run(table)?)))
            .collect::<anyhow::Result<Vec<_>>>()
    };
    let lanes = if at_once { clients.len() } else { 1 };
    let outcomes = std::thread::scope(|scope| {
        let running: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        running.into_iter().map(|lane| lane.join().expect("no lane panics")).collect::<Vec<_>>()
    });
    let mut printed: Vec<_> =
        outcomes.into_iter().collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect();
    printed.sort_by_key(|(minor, _)| *minor);
    let Some((newest, expected)) = printed.pop() else { bail!("there is no kubectl") };
    let mut differences = String::new();
    for (minor, printed) in printed {
        for (line, text) in printed.iter().filter(|(line, text)| expected.get(*line) != Some(text))
        {
            let expected = expected.get(line).map_or("", String::as_str);
            write!(differences, "\n== {line}\n-- 1.{newest}\n{expected}\n++ 1.{minor}\n{text}")?;
        }
    }
    ensure!(differences.is_empty(), "the versions differ:{differences}");
    Ok(())
}

pub async fn every_kubectl_handles_objects(fixture: &Fixture) -> anyhow::Result<()> {
    let clients = clients(fixture)?;
    tokio::task::block_in_place(|| {
        run(&clients, SERVED, true)?;
        run(&clients, OBJECTS, true)?;
        run(&clients, CUSTOM, false)
    })?;
    remove(fixture, &clients)
}

pub async fn every_kubectl_handles_pods(fixture: &Fixture) -> anyhow::Result<()> {
    let clients = clients(fixture)?;
    tokio::task::block_in_place(|| {
        run(&clients, PODS, true)?;
        for client in &clients {
            let forward = ["port-forward", "svc/web", ":80"].map(str::to_owned);
            let forward = Forward::start(client.command(&forward))?;
            let page = web::get(&fixture.cluster, &forward.url)?;
            ensure!(page.contains("v1"), "1.{}: {page}", client.minor);
        }
        let outcome = run(&clients, NODE, false);
        // It concerns the whole cluster.
        fixture.cluster.kubectl(&["uncordon", "node-2"])?;
        outcome
    })?;
    remove(fixture, &clients)
}

fn remove(fixture: &Fixture, clients: &[Client<'_>]) -> anyhow::Result<()> {
    for client in clients {
        fixture.cluster.kubectl(&["delete", "namespace", &client.namespace, "--wait=false"])?;
        std::fs::remove_dir_all(&client.folder)?;
    }
    Ok(())
}
