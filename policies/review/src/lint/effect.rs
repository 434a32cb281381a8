//! Rules that open only what the other end refuses.

use super::{Found, Subject, kinds, proof::Proof, some_of};
use crate::reach::Direction;

pub(super) fn look(subject: &Subject<'_, '_>, proof: &Proof<'_, '_>, found: &mut Found) {
    for (piece, name) in proof.rules() {
        if !proof.is_refused(piece) {
            continue;
        }
        let (other, field) = match name.direction {
            Direction::Ingress => ("egress", "client"),
            Direction::Egress => ("ingress", "server"),
        };
        let policies = proof.refusing(piece).into_iter().filter_map(|index| subject.policies().get(index));
        let names: Vec<String> = policies.map(|policy| format!("{}/{}", policy.namespace, policy.name)).collect();
        let what =
            format!("no connection passes by it: no {other} rule of the {field} allows any ({})", some_of(&names, 3));
        found.rule(kinds::NO_EFFECT, subject.reach, name, "", what);
    }
}
