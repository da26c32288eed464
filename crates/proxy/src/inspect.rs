//! Serves what this node's tables actually contain, read from the kernel for every request, on a
//! Unix socket: `GET /tables?addresses=10.96.0.10,10.244.0.5&ports=30080` answers with the elements
//! of all sets and maps that are about one of the addresses or ports, or about the link of an address
//! that has one on this node. With `&connections=10.244.1.7-10.244.0.1-TCP-8080` it also tells
//! whether the policies in the tables let such a connection pass.
//!
//! Read-only. The socket is for this machine's root only; the kubelet authenticates and authorizes
//! everybody else. It knows no map of the proxy: fields are decoded by the types that the sets
//! themselves state, so that maps of other versions are shown too.

mod decode;
mod links;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::nft::{self, Family, NftError, Socket};
use crate::table::TABLE;
use runtime::errors::cause_chain;
use verdict::{Connection, Verdict};

/// Tables with names that begin so are shown.
const TABLES: &str = "skiff-";
/// The maximum number of elements in an answer.
const ELEMENTS_MAX: usize = 10_000;
/// Answers are prepared one after the other: each reads all of the tables.
const CONCURRENT_ANSWERS: usize = 1;
/// The maximum number of addresses and of ports in a query.
const QUERY_MAX: usize = 4096;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Query {
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
    /// For which the policies are asked.
    connections: Vec<Connection>,
    /// The links of the addresses.
    links: BTreeMap<IpAddr, String>,
}

/// The answer.
#[derive(Debug, Default, Serialize)]
struct Answer {
    tables: Vec<Table>,
    /// Whether elements are left out since there are too many.
    truncated: bool,
    /// Addresses for which the proxy makes no rules, since the node itself has them.
    ignored: Vec<IpAddr>,
    /// Those of the addresses asked for that this node announces.
    announced: Vec<IpAddr>,
    /// The names of the links through which this node reaches addresses of its own pods.
    links: BTreeMap<IpAddr, String>,
    /// What policies say about the connections that were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    verdicts: Vec<Verdict>,
}

#[derive(Debug, Serialize)]
struct Table {
    /// `ip` or `ip6`.
    family: &'static str,
    name: String,
    comment: String,
    maps: Vec<Map>,
}

/// A set or map with matching elements.
#[derive(Debug, Serialize)]
struct Map {
    name: String,
    elements: Vec<Element>,
}

/// An element: the fields of its key, for a range those of its end, and its data.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Element {
    key: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_end: Option<Vec<String>>,
    /// The fields of the value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    value: Vec<String>,
    /// `goto cluster-3`, `drop`, ...
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_ms: Option<u64>,
}

struct Inspector {
    ignored: Vec<IpAddr>,
    announced: watch::Receiver<BTreeSet<IpAddr>>,
    permits: Semaphore,
}

/// Serves until `shutdown`. `ignored` are the addresses that the proxy makes no rules for,
/// `announced` those of load balancers that it announces.
///
/// # Errors
/// If the socket cannot be created.
pub fn serve(
    path: &Path,
    ignored: Vec<IpAddr>,
    announced: watch::Receiver<BTreeSet<IpAddr>>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // Left by a process that was killed.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let permits = Semaphore::new(CONCURRENT_ANSWERS);
    let state = Arc::new(Inspector { ignored, announced, permits });
    let router = Router::new().route("/tables", get(tables)).with_state(state);
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!(%error, "the server of the tables failed");
        }
    });
    Ok(())
}

async fn tables(State(inspector): State<Arc<Inspector>>, RawQuery(query): RawQuery) -> Response {
    let query = match parse(&query.unwrap_or_default()) {
        Ok(query) => query,
        Err(why) => return (StatusCode::BAD_REQUEST, why).into_response(),
    };
    let Ok(_permit) = inspector.permits.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let ends = query.connections.iter().flat_map(|one| [one.source, one.destination]);
    let addresses: Vec<IpAddr> = query.addresses.iter().copied().chain(ends).collect();
    let links = match links::of(&addresses).await {
        Ok(links) => links,
        Err(error) => return failed(&cause_chain(&error)),
    };
    let held = inspector.announced.borrow().clone();
    let announced = query.addresses.iter().copied().filter(|ip| held.contains(ip)).collect();
    let query = Query { links: links.clone(), ..query };
    let read = tokio::task::spawn_blocking(move || read(&query)).await;
    match read {
        Ok(Ok(answer)) => {
            let ignored = inspector.ignored.clone();
            Json(Answer { ignored, announced, links, ..answer }).into_response()
        }
        Ok(Err(error)) => failed(&cause_chain(&error)),
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> Response {
    tracing::warn!(error = why, "cannot read the tables");
    (StatusCode::INTERNAL_SERVER_ERROR, format!("read the tables: {why}")).into_response()
}

/// Parses `addresses=A,B&ports=1,2`, which are not encoded further.
fn parse(text: &str) -> Result<Query, String> {
    let mut query = Query::default();
    for part in text.split('&').filter(|part| !part.is_empty()) {
        let (key, values) = part.split_once('=').unwrap_or((part, ""));
        let values = values.split(',').filter(|value| !value.is_empty()).take(QUERY_MAX);
        for value in values {
            let bad = |_| format!("{key}: {value:?} is not valid");
            match key {
                "addresses" => query.addresses.push(value.parse().map_err(|_| bad(()))?),
                "ports" => query.ports.push(value.parse().map_err(|_| bad(()))?),
                "connections" => {
                    query.connections.push(Connection::parse(value).ok_or_else(|| bad(()))?);
                }
                _ => return Err(format!("unknown parameter {key:?}")),
            }
        }
    }
    match query.addresses.is_empty() && query.ports.is_empty() {
        true => Err("addresses or ports are required".to_owned()),
        false => Ok(query),
    }
}

/// Reads the tables of this network namespace. Each map is consistent in itself; a change between
/// two of them shows as an element that refers to nothing.
fn read(query: &Query) -> Result<Answer, NftError> {
    let mut socket = Socket::open()?;
    let mut answer = Answer::default();
    let mut left = ELEMENTS_MAX;
    for family in [Family::V4, Family::V6] {
        for (name, comment) in nft::tables(&mut socket, family)? {
            if !name.starts_with(TABLES) {
                continue;
            }
            let mut maps = Vec::new();
            for set in nft::sets(&mut socket, family, &name)? {
                let mut found: Vec<Element> = nft::elements(&mut socket, family, &name, &set.name)?
                    .iter()
                    .filter(|element| query.is_about(family, &set, element))
                    .map(|element| decode::element(&set, element))
                    .collect();
                answer.truncated |= found.len() > left;
                found.truncate(left);
                left -= found.len();
                if !found.is_empty() {
                    maps.push(Map { name: set.name, elements: found });
                }
            }
            if name == TABLE {
                let own = query.connections.iter().copied();
                let own = own.filter(|one| one.source.is_ipv4() == (family == Family::V4));
                let own: Vec<Connection> = own.collect();
                answer.verdicts.extend(verdict::judge(&mut socket, family, &own, &query.links)?);
            }
            let family = match family {
                Family::V4 => "ip",
                Family::V6 => "ip6",
            };
            answer.tables.push(Table { family, name, comment, maps });
        }
    }
    Ok(answer)
}

impl Query {
    /// Whether an element's key contains one of the addresses or links, or leads to an address; a key
    /// without any address is compared by its ports.
    fn is_about(&self, family: Family, set: &nft::SetTypes, element: &nft::Element) -> bool {
        let key = decode::addresses(set.key_type, &element.key);
        let end = element.key_end.as_deref();
        let end = end.map(|end| decode::addresses(set.key_type, end)).unwrap_or_default();
        let data = match (&element.data, set.data_type) {
            (nft::Data::Value(bytes), Some(kind)) => decode::addresses(kind, bytes),
            _ => Vec::new(),
        };
        let of_family = |ip: &&IpAddr| ip.is_ipv4() == (family == Family::V4);
        let mut asked = self.addresses.iter().filter(of_family);
        let in_key = |ip: &IpAddr| match end.is_empty() {
            true => key.contains(ip),
            false => key.iter().zip(&end).any(|(start, end)| start <= ip && ip <= end),
        };
        let ports = || decode::ports(set.key_type, &element.key);
        let links = || decode::links(set.key_type, &element.key);
        asked.any(|ip| in_key(ip) || data.contains(ip))
            || links().iter().any(|link| self.links.values().any(|own| own == link))
            || (key.is_empty() && ports().iter().any(|port| self.ports.contains(port)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_name_addresses_or_ports() {
        let both = parse("addresses=10.96.0.10,fd00::1&ports=80").unwrap();
        assert_eq!(both.addresses.len(), 2);
        assert_eq!(both.ports, [80]);
        for (text, part) in [
            ("", "required"),
            ("addresses=", "required"),
            ("addresses=web", "\"web\" is not valid"),
            ("ports=70000", "\"70000\" is not valid"),
            ("all=1", "unknown parameter"),
        ] {
            assert!(parse(text).unwrap_err().contains(part), "{text}");
        }
    }
}
