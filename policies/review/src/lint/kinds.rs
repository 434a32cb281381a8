//! Every kind of finding. A code never means another kind, also when its kind is gone.

use crate::sarif::Level;

/// A kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// `PF001`.
    pub code: &'static str,
    /// Words with hyphens between them.
    pub name: &'static str,
    /// How much its findings weigh.
    pub severity: Level,
    /// What it finds.
    pub what: &'static str,
    /// Why that matters.
    pub why: &'static str,
    /// What to do about it.
    pub fix: &'static str,
}

macro_rules! kinds {
    ($($constant:ident $code:literal $name:literal $severity:ident, $what:literal, $why:literal, $fix:literal;)*) => {
        $(pub(super) const $constant: &Kind = &Kind {
            code: $code,
            name: $name,
            severity: Level::$severity,
            what: $what,
            why: $why,
            fix: $fix,
        };)*
        /// All of them, by code.
        pub const ALL: &[&Kind] = &[$($constant),*];
    };
}

kinds! {
    SELECTS_NO_POD "PF001" "selects-no-pod" Warning,
        "a policy selects no pod",
        "it protects nothing today: a label is misspelt, or what it was for is gone",
        "correct podSelector, or remove the policy";
    NO_NAMESPACE "PF002" "peer-without-namespace" Warning,
        "a peer's namespaceSelector matches no namespace",
        "whom the peer was written for cannot connect, and the next namespace with these labels can",
        "label the namespace, or correct the selector";
    UNKNOWN_NAMESPACE "PF003" "unknown-namespace" Warning,
        "a peer names a namespace that does not exist, by the label kubernetes.io/metadata.name",
        "whom the peer was written for cannot connect, and whoever may create a namespace of that name can",
        "correct the name, or remove the peer";
    NO_PEER_POD "PF004" "peer-without-pod" Warning,
        "a peer matches no pod",
        "whom the peer was written for cannot connect, and the next pod with these labels can",
        "correct the selector, or remove the peer";
    NOT_SERVED "PF005" "port-not-served" Warning,
        "a rule opens a port that none of its destinations declares; asked only where all of them declare ports",
        "rules name the port of the pod, never that of a Service: a connection to the Service would be refused",
        "write the containerPort, or declare it on the container";
    NAME_NOWHERE "PF006" "named-port-nowhere" Error,
        "a named port that no destination has",
        "a named port is looked up on the destination pod, by name and protocol: here it opens nothing",
        "correct the name or the protocol, or name the port on the container";
    NAME_NOT_EVERYWHERE "PF007" "named-port-not-everywhere" Note,
        "a named port that only some of a peer's or policy's pods have",
        "at the others the rule opens nothing",
        "name the port on every container, or narrow the selector";
    REDUNDANT_POLICY "PF008" "redundant-policy" Warning,
        "a policy without which every verdict stays the same, also for labels that nobody has yet; proven by recomputing",
        "who reads it believes that it allows or protects something",
        "remove the policy";
    REDUNDANT_RULE "PF009" "redundant-rule" Warning,
        "a rule without which every verdict stays the same, also for labels that nobody has yet; proven by recomputing",
        "who removes it to close something closes nothing",
        "remove the rule";
    REDUNDANT_PEER "PF010" "redundant-peer" Warning,
        "a peer without which every verdict stays the same, also for labels that nobody has yet; proven by recomputing",
        "who removes it to close something closes nothing",
        "remove the peer";
    REDUNDANT_PORT "PF011" "redundant-port" Warning,
        "a port without which every verdict stays the same, also for labels that nobody has yet; proven by recomputing",
        "who removes it to close something closes nothing",
        "remove the port";
    NO_EFFECT "PF012" "rule-without-effect" Warning,
        "a rule that opens only what the policies of the other end refuse; proven by recomputing",
        "both ends must allow a connection: this one does not get through",
        "allow it at the other end too, or remove the rule";
    NO_DNS "PF013" "egress-without-dns" Warning,
        "pods are isolated for egress and may connect to somebody, and no rule lets them ask DNS (UDP 53)",
        "names do not resolve for them, so that even the connections their rules allow fail",
        "allow UDP and TCP 53 to the DNS pods, which are in kube-system as a rule";
    NO_DNS_TCP "PF014" "dns-without-tcp" Note,
        "pods may ask DNS by UDP and not by TCP",
        "an answer that does not fit a datagram is asked again by TCP (RFC 7766), and that is denied",
        "allow TCP 53 beside UDP 53";
    INGRESS_FREE "PF015" "ingress-not-isolated" Note,
        "a workload that no policy isolates for ingress",
        "everyone may connect to it, in the cluster and from outside",
        "write a policy that selects it, with Ingress among its types; default-deny for the namespace covers all";
    EGRESS_FREE "PF016" "egress-not-isolated" Note,
        "a workload that no policy isolates for egress",
        "it may connect to everyone, in the cluster and outside",
        "write a policy that selects it, with Egress among its types; default-deny for the namespace covers all";
    HOST_NETWORK "PF017" "selects-host-network" Warning,
        "a policy's selector matches pods of the host network",
        "policies have no effect on them: they use their node's addresses, and stay open",
        "protect them otherwise, or take hostNetwork from the pod";
    CIDR "PF018" "cidr-not-canonical" Warning,
        "a CIDR is written otherwise than it is read: host bits, leading zeros, IPv4-mapped",
        "readers differ: Kubernetes ignores host bits and leading zeros, others refuse them or read octal",
        "write the canonical form";
    YAML "PF019" "yaml-ambiguous" Warning,
        "a label key or value without quotes that YAML 1.1 readers change; values that Kubernetes itself would change, \
         such as `on`, are refused when read",
        "one tool sees another label than the next: the key `on` becomes `true`, the value 2026-01-31 a date",
        "quote it";
    OWNERS "PF020" "overlapping-owners" Warning,
        "the selector of one workload matches pods of another",
        "a policy that selects the one hits both, and the controllers may take each other's pods",
        "give each workload a label of its own, and select by it";
    EVERYONE "PF021" "open-to-everyone" Note,
        "a rule lets everyone in, or the whole internet",
        "whatever the pod answers is attacked from everywhere",
        "name the peers; behind a load balancer, its addresses";
    UNUSED_RULE "PF022" "unused-rule" Note,
        "a rule that no recorded flow used (needs --log)",
        "what nobody uses is open to an attacker alone",
        "remove the rule, or learn for longer when the window misses rare traffic";
    UNUSED_PEER "PF023" "unused-peer" Note,
        "a peer that no recorded flow used, in a rule that was used (needs --log)",
        "what nobody uses is open to an attacker alone",
        "remove the peer, or learn for longer when the window misses rare traffic";
    UNUSED_PORT "PF024" "unused-port" Note,
        "a port that no recorded flow used, in a rule that was used (needs --log)",
        "what nobody uses is open to an attacker alone",
        "remove the port, or learn for longer when the window misses rare traffic";
    IGNORED_RULES "PF025" "rules-ignored" Error,
        "rules of a direction that policyTypes leaves out",
        "Kubernetes stores them and ignores them: they allow and isolate nothing",
        "add the direction to policyTypes, or remove the rules";
    DEFAULTED_TYPES "PF026" "types-by-default" Warning,
        "policyTypes is left out, and the default is not what the rules look like",
        "without policyTypes a policy always isolates for ingress, and for egress only if it has an egress rule",
        "write policyTypes";
    NO_REASON "PF027" "suppression-without-reason" Warning,
        "a comment suppresses a finding without saying why",
        "the next reader cannot tell whether it still holds; it suppresses nothing until it has a reason",
        "write the reason behind the code: # podfence: ignore PF001 reason";
    SUPPRESSES_NOTHING "PF028" "suppresses-nothing" Warning,
        "a comment suppresses a finding that is not there",
        "it would hide the finding when it comes back, and was written for another state",
        "remove the comment, or put it on the line of the rule or policy, or right above";
}

impl Kind {
    /// The kind of a code.
    pub fn of(code: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|kind| kind.code == code)
    }
}
