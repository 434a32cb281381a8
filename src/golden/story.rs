//! `demo`: that it judges, and by traffic.yaml alone. The capture's half needs no privilege; the whole does.

use crate::world::World;
use std::{fs, path::Path};

const SHOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/policies/examples/shop");

/// The shop's folder, copied so that its traffic.yaml can be changed.
fn shop(world: &World, change: impl Fn(String) -> String) {
    fs::create_dir(world.path("shop")).expect("made");
    for file in ["cluster.yaml", "traffic.yaml", "capture.pcap", "capture.yaml"] {
        fs::copy(Path::new(SHOP).join(file), world.path("shop").join(file)).expect("copied");
    }
    let traffic = world.path("shop/traffic.yaml");
    let text = fs::read_to_string(&traffic).expect("read");
    let changed = change(text.clone());
    fs::write(traffic, &changed).expect("written");
}

/// The lines that say how each step went.
fn verdicts(out: &str) -> String {
    let is_verdict = |line: &&str| line.starts_with(|c: char| c.is_ascii_digit()) || line.contains("  differs ");
    out.lines().filter(is_verdict).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_capture_tells_its_half_and_says_what_is_left_out() {
    let world = World::new();
    let done = world.run("demo --capture-only");
    assert_eq!((done.status, done.err.as_str()), (0, ""));
    insta::assert_snapshot!(verdicts(&done.out), @r#"
1. observe: ok
2. the graph: ok
3. generate: ok
4. the evidence: ok
5. the attacks, in simulation: ok
6. the learned calls, in simulation: ok
6 steps, all as promised
"#);
    assert!(done.out.contains("left out: the lab, audit and enforcement in the kernel"), "{}", done.out);
    let promised = done.out.lines().filter(|line| line.trim_start().starts_with("promised ")).count();
    assert_eq!(promised, 6, "each step says what was promised");
}

#[test]
fn a_call_that_traffic_yaml_does_not_name_differs() {
    let world = World::new();
    shop(&world, |text| text.lines().filter(|line| !line.contains("payments:8443/pay")).collect::<Vec<_>>().join("\n"));
    let done = world.run("demo --capture-only shop");
    assert_eq!(done.status, 1, "{}", done.err);
    insta::assert_snapshot!(verdicts(&done.out), @r#"
1. observe: ok
2. the graph: DIFFERS
     differs   not in traffic.yaml: shop/checkout -> shop/payments 8443/tcp
3. generate: DIFFERS
     differs   not in traffic.yaml: shop/checkout -> shop/payments 8443/tcp
4. the evidence: ok
5. the attacks, in simulation: ok
6. the learned calls, in simulation: ok
2 of 6 steps differ: the graph; generate
"#);
}

#[test]
fn an_attack_that_was_learned_is_not_called_denied() {
    let world = World::new();
    let attack =
        "  - {name: the frontend asks the cart, from: shop/frontend, to: \"http://cart:8080/\", expect: denied}\n";
    shop(&world, |text| text + attack);
    let done = world.run("demo --capture-only shop");
    assert_eq!(done.status, 1, "{}", done.err);
    insta::assert_snapshot!(verdicts(&done.out), @r#"
1. observe: ok
2. the graph: ok
3. generate: ok
4. the evidence: ok
5. the attacks, in simulation: DIFFERS
     differs   the frontend asks the cart: nothing of it would be denied
6. the learned calls, in simulation: ok
1 of 6 steps differ: the attacks, in simulation
"#);
}

#[test]
fn a_scenario_without_a_recording_says_how_to_make_one() {
    let world = World::new();
    shop(&world, |text| text);
    fs::remove_file(world.path("shop/capture.pcap")).expect("removed");
    let done = world.run("demo --capture-only shop");
    assert_eq!(done.status, 2);
    assert!(done.err.contains("podfence lab run DIR --pcap DIR/capture.pcap"), "{}", done.err);
}

#[test]
fn the_whole_story_is_as_promised_and_leaves_nothing() {
    let required = std::env::var("PODFENCE_REQUIRE").is_ok_and(|all| all.split(',').any(|what| what == "kernel"));
    if let Err(why) = lab::permitted()
        && !required
    {
        println!("skipped: {why}");
        return;
    }
    let world = World::new();
    let done = world.run("demo --keep kept");
    assert_eq!((done.status, done.err.as_str()), (0, ""), "{}", done.out);
    assert!(done.out.contains("12 steps, all as promised"), "{}", done.out);
    assert_eq!(lab::leftovers(Some("demo")), [""; 0]);
    let denied = world.run("flows --log kept/log --verdict deny --server data/orders-db --port 6379 -o jsonl");
    assert_eq!(denied.out.lines().count(), 2, "the attack, over IPv4 and IPv6");
}
