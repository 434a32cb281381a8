//! What must hold of any bytes: reading them does not panic and gives the same each time, and a policy
//! that was read is the same when it is written and read again. The body of the fuzz target, too.

use model::{
    cluster::Cluster,
    policy::NetworkPolicy,
    yaml::{Reader, Wanted, read_policies, write_policy},
};
use std::ops::ControlFlow;

/// Panics where it does not hold.
pub(crate) fn documents(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (errors, cluster) = read_on(&text);
    assert_eq!((errors, format!("{cluster:?}")), {
        let (errors, again) = read_on(&text);
        (errors, format!("{again:?}"))
    });
    let _ends = cluster.ends();
    for policy in cluster.policies.policies {
        let written = write_policy(&policy);
        let read = read_policies("written", &written).unwrap_or_else(|error| panic!("{error}\n{written}"));
        let [again] = <[NetworkPolicy; 1]>::try_from(read.policies).expect("one policy");
        assert_eq!(without_places(again), without_places(policy));
    }
}

fn read_on(text: &str) -> (Vec<String>, Cluster) {
    let (mut reader, mut errors) = (Reader::new(Wanted::Everything), Vec::new());
    let _ = reader.read("fuzzed", text, &mut |error| {
        errors.push(error.to_string());
        ControlFlow::Continue(())
    });
    (errors, reader.finish())
}

fn without_places(mut policy: NetworkPolicy) -> NetworkPolicy {
    policy.source = None;
    policy.ingress.iter_mut().chain(&mut policy.egress).flatten().for_each(|rule| rule.source = None);
    policy
}
