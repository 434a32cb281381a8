//! Tables as large as they are asked to be, and what does not fit.

use compile::{Compiler, Plan};
use datapath::{Bindings, Datapath, Error, Options};
use model::{
    cluster::{Cluster, Namespace, Node, Pod},
    labels::{Labels, Selector},
    policy::{NetworkPolicy, Peer, PolicySet, Port, PortMatch, Protocol, Rule},
};
use std::net::IpAddr;
use verdict::{Mode, abi::maps};

const NODE: &str = "n1";
const ENDPOINTS: u16 = 500;
/// Blocks that a policy names: each an identity and a rule.
const RULES: u32 = 100_000;

fn cluster() -> Cluster {
    let mut cluster = Cluster::default();
    cluster.namespaces.insert("x".into(), Namespace::default());
    cluster.nodes.insert(NODE.into(), Node { addresses: vec![IpAddr::from([10, 0, 0, 1])], ..Node::default() });
    for number in 1..=ENDPOINTS {
        let [high, low] = number.to_be_bytes();
        cluster.pods.push(Pod {
            namespace: "x".into(),
            name: format!("pod-{number}"),
            uid: format!("uid-{number}"),
            addresses: vec![IpAddr::from([10, 1, high, low])],
            node: NODE.into(),
            ..Pod::default()
        });
    }
    cluster
}

fn policies(rules: u32) -> PolicySet {
    let peers = (1..=rules).map(|number| {
        let [_, b, c, d] = number.to_be_bytes();
        Peer::Block { cidr: IpAddr::from([11, b, c, d]).into(), except: Vec::new() }
    });
    let ports = vec![Port { protocol: Protocol::Tcp, port: PortMatch::Range(443, 443) }];
    PolicySet::new(vec![NetworkPolicy {
        namespace: "x".into(),
        name: "all".into(),
        labels: Labels::new(),
        annotations: Labels::new(),
        pod_selector: Selector::default(),
        ingress: Some(vec![Rule { peers: peers.collect(), ports, source: None }]),
        egress: None,
        source: None,
    }])
}

fn plan(compiler: &mut Compiler, cluster: &Cluster, rules: u32) -> Plan {
    compiler.plan(cluster, &policies(rules), &PolicySet::default()).unwrap()
}

fn room(datapath: &Datapath, table: &str) -> (u64, u64) {
    let size = datapath.sizes().into_iter().find(|size| size.name == table).unwrap();
    (size.room, size.bytes.unwrap_or_default())
}

#[test]
fn a_hundred_thousand_identities_and_rules_and_five_hundred_pods_fit_where_the_settings_say_so() {
    kernel_or_skip!();
    let cluster = cluster();
    for (rules, fits_twice) in [(150_000, false), (210_000, true)] {
        let options = Options { rules: Some(rules), identities: Some(RULES + 1000), ..Options::default() };
        let mut datapath = Datapath::load(&options).unwrap();
        assert_eq!(room(&datapath, maps::RULES).0, u64::from(rules));
        assert_eq!(room(&datapath, maps::IDENTITIES).0, u64::from(RULES) + 1000);
        let mut compiler = Compiler::new(NODE, Mode::Enforce);
        let first = plan(&mut compiler, &cluster, RULES);
        assert!(first.table.identities.len() >= RULES as usize && first.peak.rules >= RULES as usize);
        let published = datapath.publish(&first, &Bindings::default()).unwrap();
        assert_eq!(published.endpoints, usize::from(ENDPOINTS));
        compiler.adopt(&first);
        println!("{rules} rules: the table takes {} KiB", room(&datapath, maps::RULES).1 >> 10);
        // One more rule is another slot, beside the old one.
        let words = |datapath: &mut Datapath| -> Vec<u64> {
            datapath.tables().places().values().map(|place| place.word).collect()
        };
        let before = words(&mut datapath);
        assert!(before.len() == usize::from(ENDPOINTS) && before.iter().all(|word| *word != 0));
        let second = plan(&mut compiler, &cluster, RULES + 1);
        match datapath.publish(&second, &Bindings::default()) {
            Ok(_) => assert!(fits_twice && words(&mut datapath) != before),
            Err(Error::TooLarge(why)) => {
                assert!(!fits_twice && why.to_string().contains(&format!("of {rules}; give the agent")), "{why}");
                assert_eq!(words(&mut datapath), before, "the old policy stays in force");
            }
            Err(other) => panic!("{other}"),
        }
    }
}
