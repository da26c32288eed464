use proptest::prelude::*;

use super::*;

/// Nodes on one link that hear one another, unless they are dead or cut off.
struct Link {
    now: Instant,
    nodes: Vec<Node>,
}

struct Node {
    election: Election,
    alive: bool,
    /// Nodes hear only those with the same number.
    part: u8,
}

fn ip(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn all(count: u8) -> BTreeSet<IpAddr> {
    (1..=count).map(ip).collect()
}

impl Link {
    fn new(nodes: u8, addresses: u8) -> Self {
        let now = clock::instant();
        let node = |number| {
            let mut election = Election::new([2, 0, 0, 0, 0, number]);
            election.set_candidate(&all(addresses), now);
            Node { election, alive: true, part: 0 }
        };
        Self { now, nodes: (0..nodes).map(node).collect() }
    }

    /// Each node that is alive says what it has to say, and decides.
    fn tick(&mut self) -> Vec<(usize, Decision)> {
        self.now += INTERVAL;
        for from in 0..self.nodes.len() {
            let claims = self.nodes[from].election.claims(self.now);
            self.tell(from, &claims);
        }
        let mut made = Vec::new();
        for at in 0..self.nodes.len() {
            let node = &mut self.nodes[at];
            let decisions = if node.alive { node.election.decide(self.now) } else { Vec::new() };
            if !decisions.is_empty() {
                let claims = node.election.claims(self.now);
                self.tell(at, &claims);
            }
            made.extend(decisions.into_iter().map(|decision| (at, decision)));
        }
        made
    }

    fn tell(&mut self, from: usize, claims: &[Claim]) {
        let Node { part, alive, ref election } = self.nodes[from];
        let mac = election.own;
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if alive && node.alive && node.part == part && at != from {
                node.election.heard(mac, claims, self.now);
            }
        }
    }

    fn run(&mut self, time: Duration) -> Vec<(usize, Decision)> {
        let ticks = time.as_millis() / INTERVAL.as_millis();
        (0..ticks).flat_map(|_| self.tick()).collect()
    }

    fn holders(&self, address: u8) -> Vec<usize> {
        let holds = |node: &Node| node.alive && node.election.holds(ip(address));
        (0..self.nodes.len()).filter(|at| holds(&self.nodes[*at])).collect()
    }
}

#[test]
fn one_node_takes_each_address_and_they_are_spread() {
    let mut link = Link::new(3, 60);
    let made = link.run(Duration::from_secs(1));
    assert_eq!(made.len(), 60, "none is taken twice");
    for node in 0..3 {
        let held = (1..=60).filter(|address| link.holders(*address) == [node]).count();
        assert!((10..=32).contains(&held), "node {node} holds {held}");
    }
    assert!(link.run(Duration::from_secs(5)).is_empty(), "nothing moves without need");
}

#[test]
fn an_address_moves_within_two_seconds_and_stays_there() {
    let mut link = Link::new(3, 1);
    link.run(Duration::from_secs(1));
    let [first] = link.holders(1)[..] else { panic!("one holds it") };
    link.nodes[first].alive = false;
    let made = link.run(Duration::from_millis(1400));
    let [second] = link.holders(1)[..] else { panic!("another holds it: {made:?}") };
    assert_ne!(first, second);
    // The first comes back, as a new process.
    let mac = link.nodes[first].election.own;
    link.nodes[first].election = Election::new(mac);
    link.nodes[first].election.set_candidate(&all(1), link.now);
    link.nodes[first].alive = true;
    assert!(link.run(Duration::from_secs(5)).is_empty());
    assert_eq!(link.holders(1), [second]);
}

#[test]
fn a_process_that_is_restarted_keeps_its_addresses() {
    let mut link = Link::new(3, 30);
    link.run(Duration::from_secs(1));
    let before: Vec<_> = (1..=30).map(|address| link.holders(address)).collect();
    let mac = link.nodes[0].election.own;
    link.nodes[0].election = Election::new(mac);
    link.nodes[0].election.set_candidate(&all(30), link.now);
    let made = link.run(Duration::from_secs(2));
    assert!(made.iter().all(|(node, _)| *node == 0), "{made:?}");
    assert_eq!((1..=30).map(|address| link.holders(address)).collect::<Vec<_>>(), before);
}

#[test]
fn a_node_that_withdraws_is_followed_at_once() {
    let mut link = Link::new(2, 1);
    link.run(Duration::from_secs(1));
    let [first] = link.holders(1)[..] else { panic!("one holds it") };
    let (withdrawn, _) = link.nodes[first].election.set_candidate(&BTreeSet::new(), link.now);
    let claim = Claim { address: ip(1), standing: Standing::Withdrawn, holding: 1 };
    assert_eq!(withdrawn, [claim]);
    link.tell(first, &withdrawn);
    assert_eq!(link.tick(), [(1 - first, Decision::Take(ip(1)))]);
}

#[test]
fn of_two_holders_one_yields() {
    let mut link = Link::new(2, 1);
    link.nodes[1].part = 1;
    link.run(Duration::from_secs(1));
    assert_eq!(link.holders(1), [0, 1], "each side of a cut link has one");
    link.nodes[1].part = 0;
    let made = link.run(Duration::from_secs(2));
    let [holder] = link.holders(1)[..] else { panic!("one holds it: {made:?}") };
    let mac = link.nodes[holder].election.own;
    assert_eq!(made, [(1 - holder, Decision::Yield(ip(1), mac))]);
}

/// Cuts `cut` off from two other nodes, of which `holder` holds the address, until two hold it.
/// Returns what was decided after that.
fn short_cut(link: &mut Link, holder: usize, cut: usize) -> Vec<(usize, Decision)> {
    assert_eq!(link.holders(1), [holder]);
    link.nodes[cut].part = 1;
    for _ in 0..20 {
        link.tick();
        if link.holders(1).len() == 2 {
            link.nodes[cut].part = 0;
            return link.run(Duration::from_secs(3));
        }
    }
    panic!("{:?} hold it", link.holders(1));
}

#[test]
fn an_address_stays_with_those_that_were_not_cut_off() {
    // Every node is once cut off while it holds the address, and while another one does.
    for seed in 1..=20 {
        for holder_is_cut in [true, false] {
            let mut link = Link::new(3, 1);
            for (node, at) in link.nodes.iter_mut().zip(0..) {
                node.election = Election::new([2, 0, 0, 0, seed, at]);
                node.election.set_candidate(&all(1), link.now);
            }
            link.run(Duration::from_secs(1));
            let [first] = link.holders(1)[..] else { panic!("one holds it") };
            let cut = if holder_is_cut { first } else { (first + 1) % 3 };
            let made = short_cut(&mut link, first, cut);
            assert!(
                matches!(made[..], [(node, Decision::Yield(..))] if node == cut),
                "{cut} was cut off, {first} held it: {made:?}"
            );
            assert!(!link.holders(1).contains(&cut));
            let keeps = link.holders(1)[0];
            let contested = link.nodes[keeps].election.take_contested();
            assert_eq!(contested, [ip(1)], "machines may have learned of the other one");
            assert!(link.nodes[keeps].election.take_contested().is_empty());
        }
    }
}

#[test]
fn the_older_half_of_a_link_keeps_an_address() {
    let mut link = Link::new(4, 1);
    link.run(Duration::from_secs(1));
    let [first] = link.holders(1)[..] else { panic!("one holds it") };
    // Nobody is alone, so nothing tells which half the other machines were in.
    for at in [(first + 1) % 4, (first + 2) % 4] {
        link.nodes[at].part = 1;
    }
    link.run(Duration::from_secs(3));
    assert_eq!(link.holders(1).len(), 2);
    link.nodes.iter_mut().for_each(|node| node.part = 0);
    link.run(Duration::from_secs(3));
    assert_eq!(link.holders(1), [first]);
}

#[test]
fn a_candidate_that_does_not_act_is_passed_over() {
    let now = clock::instant();
    let mut election = Election::new([2, 0, 0, 0, 0, 1]);
    election.set_candidate(&all(1), now);
    let claim = [Claim { address: ip(1), standing: Standing::Candidate, holding: 0 }];
    let mut taken = None;
    for tick in 0..40 {
        let at = now + INTERVAL * tick;
        // Several, so that at least one comes first.
        for number in 2..10 {
            election.heard([2, 0, 0, 0, 0, number], &claim, at);
        }
        taken = taken.or((!election.decide(at).is_empty()).then_some(at - now));
    }
    let last = LISTEN + TURN * TURNS_MAX + INTERVAL;
    assert!(taken.is_some_and(|after| after > LISTEN && after <= last), "{taken:?}");
}

proptest! {
    /// Whatever happened, once it is quiet each address has exactly one holder among the nodes that
    /// can have it.
    #[test]
    fn it_converges(events in prop::collection::vec((0usize..4, 0u8..5, 1u64..8), 0..40)) {
        let mut link = Link::new(4, 6);
        for (node, event, ticks) in events {
            let now = link.now;
            let node = &mut link.nodes[node];
            match event {
                0 => node.alive = false,
                1 => {
                    node.election = Election::new(node.election.own);
                    node.election.set_candidate(&all(6), now);
                    node.alive = true;
                }
                2 => node.part = 1 - node.part,
                3 => drop(node.election.set_candidate(&all(3), now)),
                _ => drop(node.election.set_candidate(&all(6), now)),
            }
            link.run(INTERVAL * u32::try_from(ticks).unwrap());
        }
        for node in &mut link.nodes {
            node.part = 0;
        }
        link.run(Duration::from_secs(6));
        for address in 1..=6 {
            let can = |node: &Node| node.alive && node.election.entries.contains_key(&ip(address));
            let candidates = link.nodes.iter().filter(|node| can(node)).count();
            prop_assert_eq!(link.holders(address).len(), candidates.min(1));
        }
    }
}

/// However many nodes claim an address, as many are remembered, and it is still decided.
#[test]
fn no_more_candidates_are_remembered_than_the_bound() {
    let now = clock::instant();
    let mut election = Election::new([2, 0, 0, 0, 0, 0]);
    election.set_candidate(&all(1), now);
    for number in 0..2 * u32::try_from(PEERS_MAX).unwrap() {
        let [a, b, c, d] = number.to_be_bytes();
        let claim = Claim { address: ip(1), standing: Standing::Candidate, holding: 0 };
        election.heard([6, 0, a, b, c, d], &[claim], now);
    }
    assert_eq!(election.entries[&ip(1)].peers.len(), PEERS_MAX);
    election.decide(now);
}
