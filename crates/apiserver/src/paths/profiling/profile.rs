//! The format of `go tool pprof`: `perftools.profiles.Profile`, by its numbers of fields, as far as
//! it is used here. Texts are indices into a table of them.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use prost::Message;
use runtime::profile::{HERTZ, Samples, Symbol};

#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What the values of a sample are, in their order.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<Mapping>,
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// The first is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    pub period: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct ValueType {
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// A stack, the innermost function first.
#[derive(Clone, PartialEq, Message)]
pub struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
}

/// The program.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Mapping {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Whether names have been looked up, so that nobody has to.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Location {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Line {
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Function {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// As in the symbol table. Where it is the same, `go tool pprof` takes the name for one of C++.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
}

/// The number of the only mapping.
const PROGRAM: u64 = 1;
/// The name where there is none.
const UNKNOWN: &str = "unknown";

/// A profile under construction, in which each text and each function occurs once.
#[derive(Default)]
struct Builder {
    profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<i64, u64>,
}

impl Builder {
    fn text(&mut self, text: &str) -> i64 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let table = &mut self.profile.string_table;
        let index = i64::try_from(table.len()).expect("fewer texts than memory has bytes");
        table.push(text.to_owned());
        self.texts.insert(text.to_owned(), index);
        index
    }

    fn value_type(&mut self, r#type: &str, unit: &str) -> ValueType {
        ValueType { r#type: self.text(r#type), unit: self.text(unit) }
    }

    /// The location of a function, which has its number.
    fn location(&mut self, name: &str, mangled: &str) -> u64 {
        let name = self.text(name);
        if let Some(known) = self.functions.get(&name) {
            return *known;
        }
        let system_name = self.text(mangled);
        let id = self.functions.len() as u64 + 1;
        self.functions.insert(name, id);
        self.profile.function.push(Function { id, name, system_name });
        let line = vec![Line { function_id: id }];
        self.profile.location.push(Location { id, mapping_id: PROGRAM, line });
        id
    }

    /// The locations at an address.
    fn locations(&mut self, symbols: &[Symbol]) -> Vec<u64> {
        if symbols.is_empty() {
            return vec![self.location(UNKNOWN, "")];
        }
        symbols.iter().map(|symbol| self.location(&symbol.name, &symbol.mangled)).collect()
    }
}

/// The profile of what has been sampled. It looks up the names of all functions.
pub fn of(samples: &Samples, begun: Timestamp, time: Duration) -> Profile {
    let mut builder = Builder::default();
    builder.text("");
    let period = 1_000_000_000 / i64::from(HERTZ);
    let cpu = builder.value_type("cpu", "nanoseconds");
    let sample_type = vec![builder.value_type("samples", "count"), cpu];
    let program = std::env::current_exe().unwrap_or_default();
    let filename = builder.text(&program.to_string_lossy());
    let symbols = samples.symbols();
    for (stack, count) in &samples.stacks {
        let addresses = stack.iter();
        let location_id =
            addresses.flat_map(|address| builder.locations(&symbols[address])).collect();
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        let value = vec![count, count.saturating_mul(period)];
        builder.profile.sample.push(Sample { location_id, value });
    }
    Profile {
        sample_type,
        mapping: vec![Mapping { id: PROGRAM, filename, has_functions: true }],
        time_nanos: i64::try_from(begun.as_nanosecond()).unwrap_or_default(),
        duration_nanos: i64::try_from(time.as_nanos()).unwrap_or_default(),
        period_type: Some(cpu),
        period,
        ..builder.profile
    }
}
