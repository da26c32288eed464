use proptest::prelude::*;

use super::*;

type Numbers = Mirror<(u8, u8), u8, u8>;

/// By both halves of the value.
fn halves(value: &(u8, u8), index: &mut Vec<u8>) {
    index.extend([value.0, value.1]);
}

#[test]
fn changes_say_what_was_before() {
    let mut mirror = Mirror::<u8>::default();
    let object = |name: &str, value: u8| (Name::from(name), value);
    assert!(mirror.take::<u8>(Event::Init).is_empty());
    let added = mirror.take(Event::InitApply(object("ns/a", 1)));
    assert_eq!(added, [Changed::Added("ns/a".into())]);
    mirror.take(Event::InitApply(object("ns/b", 1)));
    assert!(!mirror.is_synced());
    assert!(mirror.take::<u8>(Event::InitDone).is_empty());
    assert!(mirror.is_synced());
    mirror.take::<u8>(Event::Init);
    let same = mirror.take(Event::InitApply(object("ns/b", 1)));
    assert!(same.is_empty(), "nothing changed");
    assert_eq!(mirror.get("ns/a"), Some(&1), "not known to be gone");
    let gone = mirror.take::<u8>(Event::InitDone);
    assert_eq!(gone, [Changed::Removed("ns/a".into(), 1)]);
    let changed = mirror.take(Event::Apply(object("ns/b", 2)));
    assert_eq!(changed, [Changed::Modified("ns/b".into(), 1)]);
    let gone = mirror.take(Event::Delete(object("ns/b", 2)));
    assert_eq!(gone, [Changed::Removed("ns/b".into(), 2)]);
    assert!(mirror.take(Event::Delete(object("ns/b", 2))).is_empty());
}

#[test]
fn an_object_without_a_value_is_not_kept() {
    let mut mirror = Mirror::<u8>::default();
    let apply = |value: Option<u8>| Event::Apply((Name::from("a"), value));
    assert!(mirror.take(apply(None)).is_empty());
    mirror.take(apply(Some(1)));
    assert_eq!(mirror.take(apply(None)), [Changed::Removed("a".into(), 1)]);
}

#[test]
fn an_object_that_moves_affects_both_values() {
    let mut mirror = Numbers::new(halves);
    let mut affected = |value| {
        let changes = mirror.take(Event::Apply((7, value)));
        changes.iter().flat_map(|change| mirror.affected(change)).collect::<Vec<_>>()
    };
    assert_eq!(affected((1, 2)), [1, 2]);
    assert!(affected((1, 2)).is_empty());
    assert_eq!(affected((2, 3)), [1, 2, 3]);
    assert_eq!(mirror.of(&1).count(), 0);
    assert_eq!(mirror.of(&3).count(), 1);
    mirror.take(Event::Delete((7, (0, 0))));
    assert!(mirror.indexed.is_empty());
}

#[test]
fn a_mirror_shrinks_with_its_objects() {
    let mut mirror = Mirror::<u32, u32, u32>::new(|value, index| index.push(value % 100));
    for number in 0..10_000 {
        mirror.take(Event::Apply((number, number)));
    }
    assert_eq!((mirror.iter().len(), mirror.indexed.len()), (10_000, 100));
    for number in 10..10_000 {
        mirror.take(Event::Delete((number, number)));
    }
    assert_eq!((mirror.iter().len(), mirror.indexed.len()), (10, 10));
    // The same when a watch that starts over no longer has them.
    mirror.take::<u32>(Event::Init);
    mirror.take(Event::InitApply((1, 1)));
    assert_eq!(mirror.take::<u32>(Event::InitDone).len(), 9);
    assert_eq!((mirror.iter().len(), mirror.indexed.len()), (1, 1));
    assert!(mirror.receiving.is_none());
}

/// What happens to a store and to a watch of it.
#[derive(Clone, Debug)]
enum Step {
    Put(u8, (u8, u8)),
    Delete(u8),
    /// The last event arrives a second time.
    Again,
    /// Later events are lost, until the watch is opened again.
    Lose,
    /// The watch starts over; it breaks after that many objects, and starts over once more.
    Relist(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..6u8, (0..3u8, 0..3u8)).prop_map(|(key, value)| Step::Put(key, value)),
        3 => (0..6u8).prop_map(Step::Delete),
        1 => Just(Step::Again),
        1 => Just(Step::Lose),
        2 => (0..6usize).prop_map(Step::Relist),
    ];
    prop::collection::vec(step, 0..60)
}

/// A mirror, and beside it the states that its changes add up to.
struct Consumer {
    mirror: Numbers,
    followed: BTreeMap<u8, (u8, u8)>,
}

impl Consumer {
    fn take(&mut self, event: Event<(u8, (u8, u8))>) {
        for change in self.mirror.take(event) {
            let before = self.followed.remove(change.key());
            assert_eq!(before.as_ref(), change.before());
            match self.mirror.get(change.key()) {
                None => assert!(matches!(change, Changed::Removed(..))),
                Some(after) => {
                    assert_ne!(before, Some(*after), "nothing changed");
                    self.followed.insert(*change.key(), *after);
                }
            }
        }
        let mirrored: BTreeMap<_, _> = self.mirror.iter().map(|(k, v)| (*k, *v)).collect();
        assert_eq!(mirrored, self.followed, "changes that were not reported");
        for value in 0..3 {
            let scan = |(_, of): &(&u8, &(u8, u8))| of.0 == value || of.1 == value;
            let scanned: Vec<_> = self.mirror.iter().filter(scan).collect();
            assert_eq!(self.mirror.of(&value).collect::<Vec<_>>(), scanned);
        }
    }

    fn relist(&mut self, store: &BTreeMap<u8, (u8, u8)>, breaks_after: usize) {
        self.take(Event::Init);
        for (key, value) in store.iter().take(breaks_after) {
            self.take(Event::InitApply((*key, *value)));
        }
        self.take(Event::Init);
        for (key, value) in store {
            self.take(Event::InitApply((*key, *value)));
        }
        self.take(Event::InitDone);
    }
}

proptest! {
    #[test]
    fn a_mirror_is_the_store_whatever_happens_to_the_watch(steps in steps()) {
        let mut store = BTreeMap::new();
        let mut consumer = Consumer { mirror: Mirror::new(halves), followed: BTreeMap::new() };
        consumer.relist(&store, 0);
        let (mut lost, mut last) = (false, None);
        for step in steps {
            let event = match step {
                Step::Put(key, value) => {
                    store.insert(key, value);
                    Event::Apply((key, value))
                }
                Step::Delete(key) => match store.remove(&key) {
                    Some(value) => Event::Delete((key, value)),
                    None => continue,
                },
                Step::Again => match last.clone() {
                    Some(event) => event,
                    None => continue,
                },
                Step::Lose => {
                    lost = true;
                    continue;
                }
                Step::Relist(breaks_after) => {
                    consumer.relist(&store, breaks_after);
                    (lost, last) = (false, None);
                    continue;
                }
            };
            if !lost {
                last = Some(event.clone());
                consumer.take(event);
                prop_assert!(consumer.mirror.iter().eq(store.iter()));
            }
        }
        consumer.relist(&store, 0);
        prop_assert!(consumer.mirror.iter().eq(store.iter()));
    }
}
