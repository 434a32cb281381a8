//! Pods that nobody runs yet, in as few rows as say the same: what any of them may, then what any in
//! one namespace may beyond that, then what some labels may beyond that.

use super::{Newcomers, Open};
use crate::{EndId, Nobody, Reach, SetId, Sets, universe::End, universe::Where};
use std::collections::BTreeMap;

/// Rows for these newcomers and what each may.
pub(super) fn fewest(reach: &Reach<'_, '_>, newcomers: &[EndId], opens: &[Open]) -> Vec<(Newcomers, Open)> {
    let sets = reach.sets();
    let mut places: BTreeMap<&Where, Vec<(&Nobody, Open)>> = BTreeMap::new();
    for (id, open) in newcomers.iter().zip(opens) {
        if let End::Nobody(nobody) = reach.universe().end(*id) {
            places.entry(&nobody.namespace).or_default().push((nobody, *open));
        }
    }
    let mut rows = Vec::new();
    let anywhere = all_may(sets, opens.iter().copied());
    if anywhere != Open::NOTHING {
        rows.push((Newcomers::Anywhere, anywhere));
    }
    for (place, cells) in places {
        let here = all_may(sets, cells.iter().map(|(_, open)| *open));
        let mut said = anywhere.allowed;
        if is_more(sets, here, said) {
            rows.push((newcomers_in(place, None), here));
            said = here.allowed;
        }
        let more = cells.into_iter().filter(|(_, open)| is_more(sets, *open, said));
        rows.extend(more.map(|(nobody, open)| (newcomers_in(place, Some(nobody.described.clone())), open)));
    }
    rows
}

fn newcomers_in(place: &Where, pods: Option<String>) -> Newcomers {
    match place {
        Where::Existing(namespace) => Newcomers::In { namespace: namespace.clone(), pods },
        Where::New { described, .. } => Newcomers::New { namespaces: described.clone(), pods },
    }
}

fn is_more(sets: &Sets, open: Open, said: SetId) -> bool {
    sets.minus(open.allowed, said) != SetId::NONE
}

/// What each of them may.
fn all_may(sets: &Sets, mut opens: impl Iterator<Item = Open>) -> Open {
    let Some(first) = opens.next() else { return Open::NOTHING };
    let all = opens.fold(first, |all, open| Open {
        allowed: sets.intersection(all.allowed, open.allowed),
        partial: all.partial || open.partial,
    });
    if all.allowed == SetId::NONE { Open::NOTHING } else { all }
}
