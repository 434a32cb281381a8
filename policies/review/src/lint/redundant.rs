//! Policies, rules, peers and ports that can go, and rules that the other end refuses.
//!
//! Always holds: all that is called redundant can be taken out at once and no verdict changes; of
//! things that say the same, the first stays.

use super::{Found, Subject, effect, field_of, kinds, peers_field, proof::Proof, some_of};
use crate::reach::{Direction, RuleRef};
use std::collections::BTreeSet;

/// So many rules are named that open the same.
const MOST_NAMED: usize = 3;

pub(super) fn look(subject: &Subject<'_, '_>, found: &mut Found) {
    let incomplete = subject.universe.incomplete();
    if !incomplete.is_empty() {
        found.unchecked.push(format!(
            "what is redundant or without effect (PF008 to PF012): more label combinations are told apart than can be \
             looked at, in {}",
            some_of(incomplete, 3)
        ));
        return;
    }
    let mut proof = Proof::new(subject.reach);
    let policies: Vec<usize> = (0..subject.policies().len()).rev().filter(|p| proof.without_policy(*p)).collect();
    let rules: Vec<(usize, RuleRef)> =
        proof.rules().into_iter().rev().filter(|(piece, _)| proof.without_rule(*piece)).collect();
    let (mut peers, mut ports) = (Vec::new(), Vec::new());
    for (piece, name) in proof.rules() {
        let (peer_count, port_count) = proof.size(piece);
        peers.extend((0..peer_count).rev().filter(|i| proof.without_peer(piece, *i)).map(|i| (piece, name, i)));
        ports.extend((0..port_count).rev().filter(|i| proof.without_port(piece, *i)).map(|i| (piece, name, i)));
    }
    for index in policies {
        tell_policy(subject, &proof, index, found);
    }
    let taken: Vec<RuleRef> = rules.iter().map(|(_, name)| *name).collect();
    for (piece, name) in rules {
        let what = format!("no verdict changes without it{}", instead(subject, &proof, &[piece], Some(name)));
        found.rule(kinds::REDUNDANT_RULE, subject.reach, name, "", what);
        if let (true, Some(finding)) = (leaves_no_egress(subject, &taken, name), found.findings.last_mut()) {
            finding.fix += KEEP_EGRESS;
        }
    }
    for (piece, name, index) in peers {
        let field = format!(".{}[{index}]", peers_field(name.direction));
        let what = format!("no verdict changes without it{}", covering(subject, &proof, piece, name, "peers"));
        found.rule(kinds::REDUNDANT_PEER, subject.reach, name, &field, what);
    }
    for (piece, name, index) in ports {
        let what = format!("no verdict changes without it{}", covering(subject, &proof, piece, name, "ports"));
        found.rule(kinds::REDUNDANT_PORT, subject.reach, name, &format!(".ports[{index}]"), what);
    }
    effect::look(subject, &proof, found);
}

/// What removing a rule must not change: without `policyTypes`, egress rules are what makes a policy isolate for egress.
const KEEP_EGRESS: &str = ", and where the policy has no policyTypes write `policyTypes: [Ingress, Egress]`: without \
                           egress rules it would no longer isolate for egress";

/// Whether no egress rule of a rule's policy is left when these are removed, of which it is one.
fn leaves_no_egress(subject: &Subject<'_, '_>, taken: &[RuleRef], name: RuleRef) -> bool {
    let rules = subject.policies().get(name.policy).and_then(|policy| policy.egress.as_ref()).map_or(0, Vec::len);
    let goes = |rule: &&RuleRef| (rule.policy, rule.direction) == (name.policy, Direction::Egress);
    name.direction == Direction::Egress && taken.iter().filter(goes).count() == rules
}

fn tell_policy(subject: &Subject<'_, '_>, proof: &Proof<'_, '_>, index: usize, found: &mut Found) {
    let Some(policy) = subject.policies().get(index) else { return };
    let others: BTreeSet<usize> = proof.isolating_instead_of(index);
    let what = match others.is_empty() {
        true => "no verdict changes without it: it isolates pods and then allows them everything".to_owned(),
        false => {
            let names = others.iter().filter_map(|other| subject.policies().get(*other));
            let names: Vec<String> = names.map(|p| format!("{}/{}", p.namespace, p.name)).collect();
            let rules = proof.instead_of(&proof.pieces_of(index), MOST_NAMED);
            let open = match rules.is_empty() {
                true => String::new(),
                false => {
                    let verb = if rules.len() == 1 { "opens" } else { "open" };
                    format!(", and {} {verb} what it opens", named(subject, &rules, None))
                }
            };
            let verb = if names.len() == 1 { "isolates" } else { "isolate" };
            format!("no verdict changes without it: {} {verb} the same pods{open}", some_of(&names, MOST_NAMED))
        }
    };
    found.policy(kinds::REDUNDANT_POLICY, policy, what);
}

/// What opens the same as a rule that was taken out.
fn instead(subject: &Subject<'_, '_>, proof: &Proof<'_, '_>, pieces: &[usize], own: Option<RuleRef>) -> String {
    let rules = proof.instead_of(pieces, MOST_NAMED);
    let verb = if rules.len() == 1 { "opens" } else { "open" };
    match rules.is_empty() {
        true => String::new(),
        false => format!(": {} {verb} the same", named(subject, &rules, own)),
    }
}

/// What opens the same as a part of a rule: the rest of the rule, or other rules as well.
fn covering(subject: &Subject<'_, '_>, proof: &Proof<'_, '_>, piece: usize, own: RuleRef, parts: &str) -> String {
    match proof.instead_of(&[piece], MOST_NAMED) {
        rules if rules.is_empty() => format!(": the rule's other {parts} open the same"),
        rules => format!(": the rule's other {parts} or {} open the same", named(subject, &rules, Some(own))),
    }
}

/// Rules by name and place; those of the same policy by their place in it alone.
fn named(subject: &Subject<'_, '_>, rules: &[RuleRef], own: Option<RuleRef>) -> String {
    let one = |rule: &RuleRef| {
        let Some((policy, content)) = subject.reach.rule(*rule) else { return field_of(*rule) };
        let at = content.source.as_ref().map_or(String::new(), |source| format!(" ({}:{})", source.file, source.line));
        match own.is_some_and(|own| own.policy == rule.policy) {
            true => format!("its {}{at}", field_of(*rule)),
            false => format!("{}/{} {}{at}", policy.namespace, policy.name, field_of(*rule)),
        }
    };
    some_of(&rules.iter().map(one).collect::<Vec<_>>(), MOST_NAMED)
}
