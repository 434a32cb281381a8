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
        "enforce --cluster nowhere --log log2",
        "enforce --cluster not.yaml --log log2",
        "enforce --cluster cluster.yaml --node node-9 --log log2",
        "enforce --cluster cluster.yaml --node node-1 --log cluster.yaml",
    ];
    let mut all = String::new();
    for words in cases {
        let done = world.run(words);
        assert_eq!((done.status, done.out.as_str()), (2, ""), "{words}: {}", done.err);
        all += &format!("$ podfence {words}\n{}", done.err);
    }
    insta::assert_snapshot!(all, @r#"
$ podfence flows --log nowhere
podfence: cannot read a flow log at nowhere; No such file or directory (os error 2); give the folder that `podfence observe --log` wrote
$ podfence flows --log log --since soon
podfence: --since: `soon` is no time; give one like 2026-01-31T12:00:00Z, or how long ago it was, like 15m, 2h or 1d12h; `podfence flows --help` says what --since takes
$ podfence flows --log log --sql SELEC
podfence: the question was not answered; sql parser error: Expected: an SQL statement, found: SELEC at Line: 1, Column: 1; `podfence flows --columns` lists the columns of the table flows; only queries are taken
$ podfence flows --log log --sql nothing
podfence: the question was not answered; sql parser error: Expected: an SQL statement, found: nothing at Line: 1, Column: 1; `podfence flows --columns` lists the columns of the table flows; only queries are taken
$ podfence graph --log nowhere
podfence: cannot read a flow log at nowhere; No such file or directory (os error 2); give the folder that `podfence observe --log` wrote
$ podfence generate --log log --cluster not.yaml --out out
podfence: not.yaml:1: not readable as YAML: unclosed bracket '['; give Kubernetes objects in YAML or JSON, as `kubectl get -o yaml` prints them
$ podfence generate --log log --cluster nowhere.yaml --out out
podfence: nowhere.yaml: cannot be read; No such file or directory (os error 2); give a file, a folder of .yaml, .yml or .json files, or - for standard input
$ podfence generate --log empty --cluster cluster.yaml --out out
podfence: empty holds no flows, so every workload would be closed; observe for a while first
$ podfence generate --log log --cluster cluster.yaml --out out --require-complete 0
podfence: --require-complete: 0 is no rate; give new edges an hour above 0, 0.05 say
$ podfence observe --pcap nowhere.pcap --log log2
podfence: cannot read the capture nowhere.pcap: No such file or directory (os error 2); it should be a pcap or pcapng file as `tcpdump -w` writes it, unpacked if it was compressed
$ podfence observe --pcap not.pcap --log log2
podfence: cannot read the capture not.pcap: unknown file format; it should be a pcap or pcapng file as `tcpdump -w` writes it, unpacked if it was compressed
$ podfence observe --pcap shop.pcap --log cluster.yaml
podfence: cannot make the folder cluster.yaml/cluster=default; Not a directory (os error 20); check that the folder is there, is a folder and can be written
$ podfence observe --interface nowhere0 --log log2
watching nowhere0 until Ctrl-C
podfence: cannot capture on interface nowhere0: No such device exists; `ip link` lists interfaces, and capturing needs root or CAP_NET_RAW
$ podfence enforce --cluster nowhere --log log2
podfence: nowhere: cannot be read; No such file or directory (os error 2); give a file, a folder of .yaml, .yml or .json files, or - for standard input
$ podfence enforce --cluster not.yaml --log log2
podfence: not.yaml:1: not readable as YAML: unclosed bracket '['; give Kubernetes objects in YAML or JSON, as `kubectl get -o yaml` prints them
$ podfence enforce --cluster cluster.yaml --node node-9 --log log2
podfence: node node-9 is not in the cluster: no Node and no pod's spec.nodeName has this name, its nodes are node-1; name this machine's node with --node NAME
$ podfence enforce --cluster cluster.yaml --node node-1 --log cluster.yaml
podfence: cannot make the folder cluster.yaml/cluster=default; Not a directory (os error 20); check that the folder is there, is a folder and can be written
"#);
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
