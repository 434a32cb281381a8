//! Sets of ports as closed intervals. Always holds in what these functions return: sorted,
//! disjoint, not adjacent, so that equal sets are equal values.

/// Closed intervals `first..=last` of ports.
pub type Ports = Vec<(u16, u16)>;

/// Every port that can be opened.
pub const ALL_PORTS: (u16, u16) = (1, u16::MAX);

/// The same set in its one form.
pub fn union(mut intervals: Ports) -> Ports {
    intervals.retain(|(first, last)| first <= last);
    intervals.sort_unstable();
    let mut out: Ports = Vec::with_capacity(intervals.len());
    for (first, last) in intervals {
        match out.last_mut() {
            Some((_, end)) if u32::from(first) <= u32::from(*end) + 1 => *end = last.max(*end),
            _ => out.push((first, last)),
        }
    }
    out
}

/// What both hold; both in the one form.
pub fn intersection(a: &[(u16, u16)], b: &[(u16, u16)]) -> Ports {
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while let (Some(x), Some(y)) = (a.get(i), b.get(j)) {
        let (first, last) = (x.0.max(y.0), x.1.min(y.1));
        if first <= last {
            out.push((first, last));
        }
        if x.1 <= y.1 { i += 1 } else { j += 1 }
    }
    out
}

/// What `a` holds and `b` does not; both in the one form.
pub fn difference(a: &[(u16, u16)], b: &[(u16, u16)]) -> Ports {
    let (mut out, mut holes) = (Vec::new(), b.iter().peekable());
    for &(first, last) in a {
        let mut from = u32::from(first);
        while let Some(&&(hole, end)) = holes.peek() {
            if hole > last {
                break;
            }
            if end >= first && u32::from(hole) > from {
                out.push((from as u16, hole - 1));
            }
            from = from.max(u32::from(end) + 1);
            if end > last {
                break;
            }
            holes.next();
        }
        if from <= u32::from(last) {
            out.push((from as u16, last));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn touching_intervals_become_one() {
        assert_eq!(union(vec![(81, 90), (80, 80), (92, 92)]), [(80, 90), (92, 92)]);
        assert_eq!(union(vec![(1, u16::MAX), (u16::MAX, u16::MAX)]), [(1, u16::MAX)]);
        assert_eq!(union(vec![(5, 4)]), []);
    }

    fn intervals() -> impl Strategy<Value = Ports> {
        proptest::collection::vec((0u16..40, 0u16..40), 0..8)
    }

    proptest! {
        #[test]
        fn sets_agree_with_asking_each_port(a in intervals(), b in intervals()) {
            let (a, b) = (union(a), union(b));
            let (both, only_a) = (intersection(&a, &b), difference(&a, &b));
            prop_assert_eq!(&union(only_a.clone()), &only_a);
            prop_assert_eq!(&union(both.clone()), &both);
            let has = |set: &Ports, p: u16| set.iter().any(|(first, last)| (*first..=*last).contains(&p));
            for port in 0..42 {
                prop_assert_eq!(has(&both, port), has(&a, port) && has(&b, port));
                prop_assert_eq!(has(&only_a, port), has(&a, port) && !has(&b, port));
            }
        }
    }
}
