//! The responses of upstream servers, for as long as they say (RFC 2181, RFC 2308), but not longer
//! than a bound.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{RData, Record};
use tokio::time::Instant;

/// The longest time that a response is kept; as in the usual configuration of CoreDNS.
const TTL_MAX: Duration = Duration::from_secs(30);
/// The size of all responses kept, encoded; one of them takes several times that in memory.
const BYTES_MAX: u64 = 1 << 20;

/// A query, in lower case, and whether it asks for DNSSEC records.
type Key = (Query, bool);

struct Cached {
    response: Message,
    stored: Instant,
    ttl: Duration,
    bytes: u32,
}

/// A bounded cache of responses.
pub struct Cache {
    responses: moka::sync::Cache<Key, Arc<Cached>>,
}

impl Default for Cache {
    fn default() -> Self {
        let responses = moka::sync::Cache::builder()
            .max_capacity(BYTES_MAX)
            .weigher(|_: &Key, cached: &Arc<Cached>| cached.bytes)
            .time_to_live(TTL_MAX)
            .build();
        Self { responses }
    }
}

impl Cache {
    /// A response that is still valid, with the rest of its time to live.
    pub fn get(&self, query: &Query, dnssec: bool) -> Option<Message> {
        let cached = self.responses.get(&key(query, dnssec))?;
        let age = clock::instant().duration_since(cached.stored);
        if age >= cached.ttl {
            return None;
        }
        let age_s = u32::try_from(age.as_secs()).expect("less than the longest time to live");
        let mut response = cached.response.clone();
        let sections =
            [&mut response.answers, &mut response.authorities, &mut response.additionals];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age_s);
        }
        Some(response)
    }

    /// Keeps the response, if it may be kept.
    pub fn insert(&self, query: &Query, dnssec: bool, response: &Message) {
        let Some(ttl) = ttl(response) else {
            return;
        };
        let Ok(bytes) = response.to_vec() else {
            return;
        };
        let cached = Cached {
            response: response.clone(),
            stored: clock::instant(),
            ttl,
            bytes: u32::try_from(bytes.len()).expect("a message has at most 64 KiB"),
        };
        self.responses.insert(key(query, dnssec), Arc::new(cached));
    }
}

fn key(query: &Query, dnssec: bool) -> Key {
    let mut query = query.clone();
    query.set_name(query.name().to_lowercase());
    (query, dnssec)
}

/// How long the response may be kept; `None` if it must not be.
fn ttl(response: &Message) -> Option<Duration> {
    let negative = match response.metadata.response_code {
        ResponseCode::NoError => response.answers.is_empty(),
        ResponseCode::NXDomain => true,
        _ => return None,
    };
    if response.metadata.truncation {
        return None;
    }
    let records = response.answers.iter().chain(&response.authorities);
    let shortest = records.chain(&response.additionals).map(|record| record.ttl).min()?;
    let ttl_s = match negative {
        true => shortest.min(response.authorities.iter().find_map(negative_ttl)?),
        false => shortest,
    };
    let ttl = Duration::from_secs(ttl_s.into()).min(TTL_MAX);
    (!ttl.is_zero()).then_some(ttl)
}

/// RFC 2308, section 5: the lesser of the record's own time to live and its minimum.
fn negative_ttl(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::op::{MessageType, OpCode};
    use hickory_proto::rr::rdata::{A, SOA};
    use hickory_proto::rr::{Name, RecordType};

    fn query(name: &str) -> Query {
        Query::query(Name::from_ascii(name).unwrap(), RecordType::A)
    }

    fn address(ttl_s: u32) -> Record {
        let name = Name::from_ascii("www.example.org.").unwrap();
        Record::from_rdata(name, ttl_s, RData::A(A([192, 0, 2, 1].into())))
    }

    fn soa(ttl_s: u32, minimum: u32) -> Record {
        let name = || Name::from_ascii("example.org.").unwrap();
        Record::from_rdata(name(), ttl_s, RData::SOA(SOA::new(name(), name(), 1, 1, 1, 1, minimum)))
    }

    fn response(code: ResponseCode, answers: Vec<Record>, authorities: Vec<Record>) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        (message.answers, message.authorities) = (answers, authorities);
        message
    }

    #[test]
    fn responses_are_kept_as_long_as_they_say() {
        use ResponseCode::{NXDomain, NoError, ServFail};
        let cases = [
            (response(NoError, vec![address(20), address(10)], vec![]), Some(10)),
            (response(NoError, vec![address(3600)], vec![]), Some(30)),
            (response(NoError, vec![address(20)], vec![address(5)]), Some(5)),
            (response(NoError, vec![address(0)], vec![]), None),
            (response(NXDomain, vec![], vec![soa(20, 10)]), Some(10)),
            (response(NXDomain, vec![], vec![soa(10, 20)]), Some(10)),
            (response(NoError, vec![], vec![soa(20, 7)]), Some(7)),
            (response(NoError, vec![], vec![]), None),
            (response(NXDomain, vec![], vec![]), None),
            (response(ServFail, vec![address(20)], vec![]), None),
        ];
        for (response, ttl_s) in cases {
            assert_eq!(ttl(&response), ttl_s.map(Duration::from_secs), "{response:?}");
        }
        let mut truncated = response(NoError, vec![address(20)], vec![]);
        truncated.metadata.truncation = true;
        assert_eq!(ttl(&truncated), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_kept_response_ages_and_ends() {
        let cache = Cache::default();
        let sent = response(ResponseCode::NoError, vec![address(20)], vec![]);
        cache.insert(&query("www.example.org."), false, &sent);
        let ttl_of = |name: &str, dnssec| {
            cache.get(&query(name), dnssec).map(|response| response.answers[0].ttl)
        };
        assert_eq!(ttl_of("WWW.example.org.", false), Some(20));
        assert_eq!(ttl_of("www.example.org.", true), None);
        assert_eq!(ttl_of("other.example.org.", false), None);
        tokio::time::advance(Duration::from_secs(19)).await;
        assert_eq!(ttl_of("www.example.org.", false), Some(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(ttl_of("www.example.org.", false), None);
    }

    #[test]
    fn many_names_do_not_cost_more_than_the_bound() {
        let cache = Cache::default();
        for n in 0..20_000 {
            let records = vec![address(20); 20];
            let sent = response(ResponseCode::NoError, records, vec![]);
            cache.insert(&query(&format!("n{n}.example.org.")), false, &sent);
        }
        cache.responses.run_pending_tasks();
        assert!(cache.responses.weighted_size() <= BYTES_MAX);
        assert!(cache.responses.entry_count() > 100);
    }
}
