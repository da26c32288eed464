//! What the proxy's nftables tables look like: `table ip skiff-proxy` and `table ip6 skiff-proxy`.
//!
//! All data is in maps and sets ([`Map`]); the chains are static, but for one per endpoint count
//! (and affinity timeout) in use. So a change of a Service changes a few elements and never a rule,
//! and the number of rules does not grow with the number of Services.
//!
//! A new connection to a Service: the frontend (address, protocol, port) leads through `services`
//! or `node-ports` to a balancing chain such as `cluster-3` (three endpoints). There a random
//! number below 3 is the slot, frontend and slot give the endpoint (`endpoints`), and the
//! connection is translated. All of it happens in one rule and its registers: no packet mark is
//! used, and later packets of the connection are conntrack's. Connections that must come back
//! through this node get a bit in the conntrack mark, which `postrouting` turns into source
//! translation.
//!
//! `nft list ruleset` must be able to show all of it: `nft` fails on rules that use a map's result
//! as part of another map's key, so there are none.

mod element;
mod layout;

pub use element::{
    Chain, Data, Endpoint, Frontend, Key, LOCAL_SLOTS, Map, Protocol, Source, Target,
};
pub use layout::{Layout, TABLE};
