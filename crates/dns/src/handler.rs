//! Handles a query, from the socket to the response.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hickory_proto::op::{Edns, Message, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Record, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use rand::seq::SliceRandom;

use crate::clients::Clients;
use crate::forward::{Forwarder, PAYLOAD_MAX};
use crate::records::Records;
use crate::zone::{Answer, Zone};

/// Answers the server's queries. Clones share everything.
#[derive(Clone)]
pub struct Handler {
    zone: Arc<Zone>,
    records: Arc<ArcSwap<Records>>,
    forwarder: Arc<Forwarder>,
    clients: Clients,
}

/// The content of a response.
#[derive(Default)]
struct Reply {
    code: ResponseCode,
    authoritative: bool,
    truncated: bool,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Handler {
    pub fn new(
        zone: Zone,
        records: Arc<ArcSwap<Records>>,
        forwarder: Forwarder,
        clients: Clients,
    ) -> Self {
        Self { zone: Arc::new(zone), records, forwarder: Arc::new(forwarder), clients }
    }

    async fn reply(&self, request: &Request) -> Reply {
        let error = |code| Reply { code, ..Reply::default() };
        if !self.clients.admits(request.src().ip()).await {
            return error(ResponseCode::Refused);
        }
        if request.metadata.op_code != OpCode::Query {
            return error(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else {
            return error(ResponseCode::FormErr);
        };
        let query = info.query.original();
        let (name, kind) = (query.name(), query.query_type());
        if matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return error(ResponseCode::Refused);
        }
        let records = self.records.load_full();
        if self.zone.contains(name) {
            return self.finish(request, &records, self.zone.answer(&records, name, kind)).await;
        }
        match self.zone.reverse(&records, name, kind) {
            Some(answer) => self.finish(request, &records, answer).await,
            None => self.forward(request, query).await,
        }
    }

    /// Turns the zone's answer into a reply, resolving an alias that leads out of the zone.
    async fn finish(&self, request: &Request, records: &Records, answer: Answer) -> Reply {
        let mut reply = Reply {
            code: answer.code,
            authoritative: true,
            answers: answer.answers,
            additionals: answer.additionals,
            ..Reply::default()
        };
        if let Some(target) = answer.external_alias {
            let Ok(info) = request.request_info() else {
                return reply;
            };
            let query = Query::query(target, info.query.query_type());
            let rest = self.forward(request, &query).await;
            reply.code = rest.code;
            reply.truncated = rest.truncated;
            reply.answers.extend(rest.answers);
            reply.authorities = rest.authorities;
            return reply;
        }
        if reply.answers.is_empty() {
            reply.authorities.push(self.zone.soa(records));
        }
        // Clients tend to use the first record.
        reply.answers.shuffle(&mut rand::rng());
        reply.answers.sort_by_key(|record| record.record_type() != RecordType::CNAME);
        reply
    }

    async fn forward(&self, request: &Request, query: &Query) -> Reply {
        let dnssec = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        let tcp = request.protocol() == Protocol::Tcp;
        match self.forwarder.resolve(request.src().ip(), query, dnssec, tcp).await {
            Ok(Message { metadata, answers, authorities, additionals, .. }) => Reply {
                code: metadata.response_code,
                authoritative: false,
                truncated: metadata.truncation,
                answers,
                authorities,
                additionals,
            },
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::debug!(name = %query.name(), %error, cause, "cannot forward the query");
                Reply { code: ResponseCode::ServFail, ..Reply::default() }
            }
        }
    }
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response_handle: R,
    ) -> ResponseInfo {
        let reply = self.reply(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.authoritative;
        metadata.truncation = reply.truncated;
        metadata.recursion_available = true;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().clamp(512, PAYLOAD_MAX));
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let none: [&Record; 0] = [];
        let response =
            builder.build(metadata, &reply.answers, &reply.authorities, none, &reply.additionals);
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, client = %request.src(), "cannot send the response");
                failed(metadata)
            }
        }
    }
}

/// The result reported to the server for a response that was not sent.
fn failed(mut metadata: Metadata) -> ResponseInfo {
    metadata.response_code = ResponseCode::ServFail;
    hickory_proto::op::Header { metadata, counts: hickory_proto::op::HeaderCounts::default() }
        .into()
}
