//! A small encoder and decoder for nf_tables (and conntrack) over a raw netlink socket.
//!
//! Entry points: [`Batch`] collects changes of tables, chains, rules, sets and elements;
//! [`Socket::apply`] sends them to the kernel as one atomic transaction; [`Socket::dump`] lists
//! existing objects. Rules are lists of [`Expr`]. This module knows the wire format of
//! `linux/netfilter/nf_tables.h`, and nothing about Services.
//!
//! Limits of the format that are handled here and hidden from callers: an attribute is limited to
//! 64 KB, so elements are split over several messages of one transaction; a transaction is one
//! datagram, so the socket's send buffer grows as needed; the kernel responds before `send`
//! returns, so reading never blocks.

mod batch;
mod expr;
mod message;
mod read;
mod socket;

pub use batch::{
    BaseChain, Batch, ChainKind, ElementData, Hook, KeyEnd, NewElement, Set, SetData, Verdict,
};
pub use expr::{Expr, Reg};
pub use message::{Attributes, Message};
pub use read::{
    Data, Element, SetTypes, elements, intervals, names, rules_per_chain, sets, table_comment,
    tables,
};
pub use socket::{NftError, Notification, Socket, notifications};

/// The address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    pub fn number(self) -> u8 {
        match self {
            Family::V4 => 2,
            Family::V6 => 10,
        }
    }

    /// The length of an address, in bytes.
    pub fn address_len(self) -> usize {
        match self {
            Family::V4 => 4,
            Family::V6 => 16,
        }
    }
}
