//! Shuffle sharding: a flow is dealt a hand of queues, so that one flow that floods its hand leaves
//! others at least one queue of their own, most likely.

/// Bits of a hash that a deal may use, so that all hands are about equally likely (upstream's).
pub const HASH_BITS: u32 = 60;
/// The largest hand that fits into [`HASH_BITS`] from a deck that is larger than it.
const HAND_MAX: usize = 15;

/// Bits of a hash that it takes to deal `hand` cards of a deck.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn entropy_bits(deck: i32, hand: i32) -> u32 {
    (f64::from(deck).log2() * f64::from(hand)).ceil() as u32
}

/// Calls `pick` with `hand` different numbers below `deck`, as the hash says.
pub fn deal(mut hash: u64, deck: u32, hand: u32, mut pick: impl FnMut(u32)) {
    let mut dealt = [0_u32; HAND_MAX];
    let hand = (hand as usize).min(HAND_MAX).min(deck as usize);
    for (index, remainder) in dealt.iter_mut().take(hand).enumerate() {
        let left = u64::from(deck) - index as u64;
        *remainder = u32::try_from(hash % left).expect("it is less than the size of the deck");
        hash /= left;
    }
    for (index, remainder) in dealt.iter().take(hand).enumerate() {
        let mut card = *remainder;
        for before in dealt[..index].iter().rev() {
            if card >= *before {
                card += 1;
            }
        }
        pick(card);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hands_are_limited_by_the_bits_of_a_hash() {
        for (deck, hand, bits) in [(64, 8, 48), (128, 6, 42), (64, 10, 60), (64, 11, 66), (1, 1, 0)]
        {
            assert_eq!(entropy_bits(deck, hand), bits, "{hand} of {deck}");
        }
    }

    proptest! {
        #[test]
        fn a_hand_has_different_cards_of_the_deck(hash: u64, deck in 1_u32..200, hand in 1_u32..16) {
            let hand = hand.min(deck);
            let mut cards = Vec::new();
            deal(hash, deck, hand, |card| cards.push(card));
            prop_assert_eq!(cards.len(), hand as usize);
            prop_assert!(cards.iter().all(|card| *card < deck));
            let count = cards.len();
            cards.sort_unstable();
            cards.dedup();
            prop_assert_eq!(cards.len(), count);
        }
    }

    #[test]
    fn every_card_is_dealt_about_as_often() {
        let (mut counts, mut hash) = ([0_u32; 16], 1_u64);
        for _ in 0..16_000 {
            hash = hash
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            deal(hash >> 4, 16, 4, |card| counts[card as usize] += 1);
        }
        assert!(counts.iter().all(|count| (3_600..4_400).contains(count)), "{counts:?}");
    }
}
