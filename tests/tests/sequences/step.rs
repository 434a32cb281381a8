//! One thing that happens. Each can happen at any time, so that any part of a sequence is a sequence.

use proptest::{option, prelude::*, sample::select};
use serde_json::{Value, json};
use std::fmt;
use tests::objects::{NAMESPACES, PORTS, container_ports, labels, policy};

/// Pods there can be at once.
pub(crate) const PODS: usize = 6;
/// Addresses they have, one of each family.
pub(crate) const ADDRESSES: u8 = 8;
const POLICIES: usize = 6;
const SERVICES: u8 = 3;
/// The namespace whose pods stand behind one Service, and are told apart.
const CROWD: &str = "a";

/// What happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A policy of this number is there now, in force or staged.
    Policy {
        number: usize,
        staged: bool,
        object: Value,
    },
    /// It goes.
    PolicyGoes {
        number: usize,
        staged: bool,
    },
    /// A pod of this number begins; its predecessor, and who had its address, are gone.
    Pod {
        number: usize,
        namespace: &'static str,
        labels: Value,
        ports: Value,
        here: bool,
        address: u8,
    },
    PodGoes {
        number: usize,
    },
    PodLabels {
        number: usize,
        labels: Value,
    },
    NamespaceLabels {
        namespace: &'static str,
        labels: Value,
    },
    Mode {
        namespace: &'static str,
        mode: Option<&'static str>,
    },
    /// A Service of the pods with this label.
    Service {
        number: u8,
        namespace: &'static str,
        app: &'static str,
        port: u16,
        target: Value,
    },
    ServiceGoes {
        number: u8,
    },
    /// A namespace is being deleted: its policies are gone, its pods not yet.
    NamespaceEnds {
        namespace: &'static str,
    },
    /// The tables are too small for what follows.
    DoesNotFit,
    /// The agent is killed; another begins.
    AgentKilled,
    /// Every entry is lost.
    EntriesLost,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let namespace = || select(&NAMESPACES[..]);
    let pod = || 0..PODS;
    let a_policy = (0..POLICIES, prop::bool::weighted(0.25), policy())
        .prop_map(|(number, staged, object)| Step::Policy { number, staged, object });
    let a_pod = (pod(), namespace(), labels(), container_ports(), prop::bool::weighted(0.7), 0..ADDRESSES).prop_map(
        |(number, namespace, labels, ports, here, address)| Step::Pod {
            number,
            namespace,
            labels,
            ports,
            here,
            address,
        },
    );
    let target = prop_oneof![
        2 => select(&PORTS[..]).prop_map(Value::from),
        1 => select(&["http", "dns"][..]).prop_map(Value::from),
    ];
    let service = (0..SERVICES, namespace(), select(&["web", "api"][..]), select(&PORTS[..]), target)
        .prop_map(|(number, namespace, app, port, target)| Step::Service { number, namespace, app, port, target });
    let of_crowd = (pod(), prop_oneof![3 => select(&["front", "back"][..]), 1 => Just("other")], 0..ADDRESSES, 0..8u8)
        .prop_map(|(number, tier, address, where_)| Step::Pod {
            number,
            namespace: CROWD,
            labels: json!({"app": if where_ < 6 { "web" } else { "api" }, "tier": tier}),
            ports: json!([{"name": "http", "containerPort": 80}]),
            here: where_ != 0,
            address,
        });
    let divides =
        (0..POLICIES, prop::bool::weighted(0.25), select(&["front", "back"][..])).prop_map(|(number, staged, tier)| {
            let to = json!([{"namespaceSelector": {}, "podSelector": {"matchLabels": {"tier": tier}}}]);
            let spec = json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": to}]});
            let (kind, version) = ("NetworkPolicy", "networking.k8s.io/v1");
            let metadata = json!({"namespace": CROWD});
            let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
            Step::Policy { number, staged, object }
        });
    let service_of_crowd = (0..SERVICES, select(&PORTS[..])).prop_map(|(number, port)| Step::Service {
        number,
        namespace: CROWD,
        app: "web",
        port,
        target: Value::from(80),
    });
    let mode = option::of(select(&["learn", "audit", "enforce", "enforce"][..]));
    prop_oneof![
        28 => a_policy,
        8 => (0..POLICIES, any::<bool>()).prop_map(|(number, staged)| Step::PolicyGoes { number, staged }),
        22 => a_pod,
        4 => pod().prop_map(|number| Step::PodGoes { number }),
        12 => (pod(), labels()).prop_map(|(number, labels)| Step::PodLabels { number, labels }),
        5 => (namespace(), labels()).prop_map(|(namespace, labels)| Step::NamespaceLabels { namespace, labels }),
        5 => (namespace(), mode).prop_map(|(namespace, mode)| Step::Mode { namespace, mode }),
        7 => service,
        // So that Services are met of whose backends policy allows some.
        16 => of_crowd,
        10 => divides,
        4 => service_of_crowd,
        2 => (0..SERVICES).prop_map(|number| Step::ServiceGoes { number }),
        2 => namespace().prop_map(|namespace| Step::NamespaceEnds { namespace }),
        4 => Just(Step::DoesNotFit),
        1 => Just(Step::AgentKilled),
        2 => Just(Step::EntriesLost),
    ]
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |staged: &bool| if *staged { "staged policy" } else { "policy" };
        match self {
            Self::Policy { number, staged, object } => {
                let (namespace, spec) = (&object["metadata"]["namespace"], &object["spec"]);
                write!(f, "{} p{number} of {namespace}: {spec}", set(staged))
            }
            Self::PolicyGoes { number, staged } => write!(f, "{} p{number} goes", set(staged)),
            Self::Pod { number, namespace, labels, ports, here, address } => {
                write!(f, "pod{number} of {namespace} at {address}, here: {here}, labels {labels}, ports {ports}")
            }
            other => write!(f, "{other:?}"),
        }
    }
}
