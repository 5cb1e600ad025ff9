//! Exactly-once accounting for one client.

use std::ops::Range;

/// The sequence numbers that a client got, from its first on.
#[derive(Debug, Default)]
pub(super) struct Account {
    first: Option<u64>,
    /// One bit for each number from `first` on.
    got: Vec<u64>,
    newest: u64,
    duplicates: u64,
    /// Numbers from before its first: the order was wrong, or a resumed session began too early.
    early: u64,
    /// What lies in gaps that the client was told of.
    told: Vec<Range<u64>>,
    /// The last time that the connection was cut.
    cut: Option<Cut>,
}

/// A connection's end, and how it went on.
#[derive(Debug)]
struct Cut {
    /// What would have come next.
    from: u64,
    /// What came next.
    next: Option<u64>,
    /// Whether the client was told of a gap when it came back.
    told: bool,
}

/// What a client, or all of them, came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Balance {
    /// Numbers from the client's first to the last that was posted.
    pub(super) expected: u64,
    /// Of these, those that it got.
    pub(super) got: u64,
    /// Of those that it did not get, those that no gap explains.
    pub(super) silent: u64,
    /// Deliveries of what it had already.
    pub(super) duplicates: u64,
    /// Deliveries from before its first.
    pub(super) early: u64,
}

// === impl Account ===

impl Account {
    /// Notes one delivery.
    pub(super) fn note(&mut self, number: u64) {
        let first = *self.first.get_or_insert(number);
        let Some(index) = number.checked_sub(first) else {
            self.early += 1;
            return;
        };
        let waits = |cut: &&mut Cut| cut.next.is_none() && cut.from <= number;
        if let Some(cut) = self.cut.as_mut().filter(waits) {
            cut.next = Some(number);
            if cut.told {
                self.told.push(cut.from..number);
            }
        }
        self.newest = self.newest.max(number);
        let (word, bit) = place(index);
        if word >= self.got.len() {
            self.got.resize(word + 1, 0);
        }
        if self.got[word] & bit != 0 {
            self.duplicates += 1;
        }
        self.got[word] |= bit;
    }

    /// Notes that the connection is cut.
    pub(super) fn cut(&mut self) {
        let waits = self.cut.as_ref().is_some_and(|cut| cut.next.is_none());
        if self.first.is_some() && !waits {
            self.cut = Some(Cut {
                from: self.newest + 1,
                next: None,
                told: false,
            });
        }
    }

    /// Notes that the client is back, and whether it was told of a gap: from what it had until what came next, which may have come
    /// already.
    pub(super) fn back(&mut self, gap: bool) {
        if let Some(cut) = &mut self.cut {
            cut.told = gap;
            if gap {
                self.told.extend(cut.next.map(|next| cut.from..next));
            }
        }
    }

    /// Whether it has everything from its first number until before `end`, less what is `excused`.
    pub(super) fn is_complete(&self, end: u64, excused: impl Fn(u64) -> bool) -> bool {
        let balance = self.balance(end, excused);
        balance.got == balance.expected
    }

    /// Compares it with what was posted: everything before `end`, less what is `excused`.
    pub(super) fn balance(&self, end: u64, excused: impl Fn(u64) -> bool) -> Balance {
        let mut balance = Balance {
            duplicates: self.duplicates,
            early: self.early,
            ..Balance::default()
        };
        for number in self.first.unwrap_or(end)..end {
            let has = self.has(number);
            // What was refused may be delivered all the same, but need not be.
            if has || !excused(number) {
                balance.expected += 1;
                balance.got += u64::from(has);
                balance.silent += u64::from(!has && !self.is_told(number));
            }
        }
        balance
    }

    fn is_told(&self, number: u64) -> bool {
        let waits = self.cut.as_ref();
        let waits = waits.filter(|cut| cut.told && cut.next.is_none());
        waits.is_some_and(|cut| cut.from <= number)
            || self.told.iter().any(|gap| gap.contains(&number))
    }

    fn has(&self, number: u64) -> bool {
        let index = self.first.and_then(|first| number.checked_sub(first));
        index.is_some_and(|index| {
            let (word, bit) = place(index);
            self.got.get(word).is_some_and(|word| word & bit != 0)
        })
    }
}

fn place(index: u64) -> (usize, u64) {
    let word = usize::try_from(index / 64).expect("numbers are counted from a client's first");
    (word, 1 << (index % 64))
}

// === impl Balance ===

impl Balance {
    /// Numbers that never came.
    pub(super) fn missing(&self) -> u64 {
        self.expected - self.got
    }

    /// Adds another client's.
    pub(super) fn add(&mut self, other: Self) {
        self.expected += other.expected;
        self.got += other.got;
        self.silent += other.silent;
        self.duplicates += other.duplicates;
        self.early += other.early;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(numbers: &[u64]) -> Account {
        let mut account = Account::default();
        for number in numbers {
            account.note(*number);
        }
        account
    }

    #[test]
    fn everything_once_is_complete_in_any_order() {
        let numbers: Vec<u64> = (100..300).collect();
        assert!(account(&numbers).is_complete(300, |_| false));
        let swapped = account(&[5, 7, 6, 8]);
        assert!(swapped.is_complete(9, |_| false));
        assert_eq!(swapped.balance(9, |_| false).duplicates, 0);
    }

    #[test]
    fn counts_what_is_missing_twice_and_early() {
        let balance = account(&[10, 11, 11, 13, 9, 13, 13]).balance(16, |number| number == 15);
        let expected = Balance {
            expected: 5,
            got: 3,
            silent: 2,
            duplicates: 3,
            early: 1,
        };
        assert_eq!(balance, expected);
        assert_eq!(balance.missing(), 2);
    }

    #[test]
    fn a_gap_explains_what_lies_in_it_and_nothing_else() {
        // 2 is missing before the gap, 4 and 5 in it, 7 behind it; another gap is open at the end.
        let mut account = account(&[1, 3]);
        account.cut();
        account.note(6);
        account.back(true);
        account.note(8);
        account.cut();
        account.back(true);
        let balance = account.balance(12, |_| false);
        assert_eq!((balance.missing(), balance.silent), (7, 2));
        // Cut again before anything came, and then not told of anything.
        account.cut();
        account.back(false);
        let balance = account.balance(12, |_| false);
        assert_eq!((balance.missing(), balance.silent), (7, 5));
    }

    #[test]
    fn a_client_that_got_nothing_expects_nothing() {
        assert_eq!(
            Account::default().balance(1_000, |_| false),
            Balance::default()
        );
    }

    #[test]
    fn what_is_excused_counts_only_when_it_came() {
        assert_eq!(account(&[0, 1, 2]).balance(3, |_| true).got, 3);
        let balance = account(&[0, 2]).balance(3, |_| true);
        assert_eq!((balance.expected, balance.got), (2, 2));
    }
}
