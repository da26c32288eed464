//! The layout of the proxy's nftables tables: `table ip skiff-proxy` and `table ip6 skiff-proxy`.
//!
//! All data is in maps and sets ([`Map`]); the chains are static, except for one per endpoint count
//! (and affinity timeout) in use. A change of a Service thus changes a few elements and never a
//! rule, and the number of rules does not grow with the number of Services.
//!
//! A new connection to a Service: the frontend (address, protocol, port) maps through `services` or
//! `node-ports` to a load balancing chain such as `cluster-3` (three endpoints). There a random
//! number below 3 is the slot, frontend and slot map to the endpoint (`endpoints`), and the
//! destination is translated. All of this happens in the registers of one rule: no packet mark is
//! used, and conntrack handles the connection's later packets. Connections whose replies must
//! return through this node get a bit in the conntrack mark, which `postrouting` turns into source
//! translation.
//!
//! `nft list ruleset` must be able to display everything: `nft` fails on rules that use a map's
//! result as part of another map's key, so there are none.

mod element;
mod layout;
mod policy;

pub use element::{
    Chain, Data, Endpoint, Frontend, Key, LOCAL_SLOTS, Map, Protocol, Source, Target,
};
pub use layout::{Layout, TABLE};
pub use policy::{Direction, Entry, LinkName, PolicyKey};
