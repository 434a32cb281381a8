//! Bad input: each case with its whole error text, on one line of standard error, with exit status 2.

use crate::world::World;
use std::fs;

#[test]
fn an_error_says_what_why_and_what_to_try() {
    let world = World::observed();
    fs::write(world.path("not.yaml"), "kind: [\n").expect("written");
    fs::write(world.path("not.pcap"), "no capture").expect("written");
    fs::create_dir(world.path("empty")).expect("made");
    let cases = [
        "flows --log nowhere",
        "flows --log log --since soon",
        "flows --log log --sql SELEC",
        "flows --log log --sql nothing",
        "graph --log nowhere",
        "generate --log log --cluster not.yaml --out out",
        "generate --log log --cluster nowhere.yaml --out out",
        "generate --log empty --cluster cluster.yaml --out out",
        "generate --log log --cluster cluster.yaml --out out --require-complete 0",
        "observe --pcap nowhere.pcap --log log2",
        "observe --pcap not.pcap --log log2",
        "observe --pcap shop.pcap --log cluster.yaml",
        "observe --interface nowhere0 --log log2",
    ];
    let mut all = String::new();
    for words in cases {
        let done = world.run(words);
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{words}: {}", done.err);
        all += &format!("$ podfence {words}\n{}", done.err);
    }
    insta::assert_snapshot!(all, @"");
}

#[test]
fn a_word_that_is_not_understood_is_answered_with_the_usage_and_status_2() {
    let world = World::new();
    for words in ["", "observe", "flows --log l --follow --sql q", "flows --log l -o yaml", "no-such-verb"] {
        let done = world.run(words);
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{words}");
        assert!(!done.err.is_empty());
    }
}
