//! Every class as a test of its own name, over both families and at each end.

use selftest::{Missing, Options, Outcome};
use std::{fs, path::Path};

/// Whether this process may load programs and make namespaces; prints why not.
fn is_permitted(test: &str) -> bool {
    let why = if !nix::unistd::geteuid().is_root() {
        "needs root to load eBPF programs and to make network namespaces"
    } else if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        "needs a kernel with BTF"
    } else {
        return true;
    };
    let required = std::env::var("PODFENCE_REQUIRE").unwrap_or_default().split(',').any(|part| part == "kernel");
    assert!(!required, "{test}: {why}, and PODFENCE_REQUIRE=kernel forbids to skip");
    println!("skipped: {test}: {why}");
    false
}

fn holds(name: &str) {
    if !is_permitted(name) {
        return;
    }
    let options = Options { classes: vec![name.to_owned()], ..Options::default() };
    let report = selftest::run(&options, &mut |row| {
        println!(
            "{} {:?} {:?}: {:?} {:?} in {} ms",
            row.class, row.family, row.ends, row.outcome, row.why, row.took_ms
        );
        for shot in &row.shots {
            println!("    {shot:?}");
        }
    });
    let report = report.expect("the range comes up");
    for row in report.rows.iter().filter(|row| row.outcome == Outcome::NotRun) {
        println!("skipped: {name}: {}", row.why.as_deref().unwrap_or_default());
    }
    assert_eq!(report.worst(Missing::Allowed), Outcome::Held, "{name}");
}

#[test]
fn every_class_says_which_line_of_defence_it_leans_on() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/defences");
    let table = fs::read_to_string(folder.join("README.md")).expect("a table");
    for class in selftest::classes() {
        let row = table.lines().find(|line| line.starts_with(&format!("| `{}` |", class.name)));
        let row = row.unwrap_or_else(|| panic!("{} is not in tests/defences/README.md", class.name));
        assert!(row.contains(&format!("| {} | {}: ", class.number, class.defence)), "{row}");
        let patch = format!("{}.patch", class.defence);
        assert!(folder.join(&patch).exists(), "{patch} takes nothing out: {row}");
        assert!(row.contains(&format!("| `{patch}` |")), "{row}");
    }
    let rows = table.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, selftest::classes().len(), "tests/defences/README.md has rows of classes that are gone");
}

macro_rules! classes {
    ($($test:ident = $name:literal;)+) => {
        $(#[test]
        fn $test() {
            holds($name);
        })+

        #[test]
        fn every_class_has_a_test() {
            let tested = [$($name),+];
            let all: Vec<_> = selftest::classes().iter().map(|class| class.name).collect();
            for name in &all {
                assert!(tested.contains(name), "{name} has no test");
            }
            assert_eq!(tested.len(), all.len());
        }
    };
}

classes! {
    forged_source = "forged-source";
    taken_for_the_node = "taken-for-the-node";
    nodes_labels_and_address = "nodes-labels-and-address";
    router_messages = "router-messages";
    dhcp_answers = "dhcp-answers";
    two_claim_one_address = "two-claim-one-address";
    another_pods_address = "another-pods-address";
    neighbour_forgery = "neighbour-forgery";
    reused_port = "reused-port";
    restart_under_fire = "restart-under-fire";
    before_the_first_sync = "before-the-first-sync";
    full_ring = "full-ring";
    raised_denials = "raised-denials";
    overlapping_fragments = "overlapping-fragments";
    tiny_fragments = "tiny-fragments";
    out_of_order_fragments = "out-of-order-fragments";
    later_fragment_first = "later-fragment-first";
    fragmented_again = "fragmented-again";
    header_options = "header-options";
    endless_headers = "endless-headers";
    vlan_tags = "vlan-tags";
    headers_out_of_reach = "headers-out-of-reach";
    icmp_errors = "icmp-errors";
    echo_on_the_other_direction = "echo-on-the-other-direction";
    protocol_numbers = "protocol-numbers";
    odd_tcp_flags = "odd-tcp-flags";
    colliding_keys = "colliding-keys";
    deleted_beside_others = "deleted-beside-others";
    imitated_namespace_labels = "imitated-namespace-labels";
    label_taken_away = "label-taken-away";
    selector_leaves_its_namespace = "selector-leaves-its-namespace";
    namespace_ends = "namespace-ends";
    revoked_connection = "revoked-connection";
    open_port_on_the_node = "open-port-on-the-node";
    escape_codes = "escape-codes";
    root_on_the_node = "root-on-the-node";
    blocks_not_canonical = "blocks-not-canonical";
    table_too_large = "table-too-large";
    narrower_blocks = "narrower-blocks";
    port_ranges = "port-ranges";
    empty_missing_null = "empty-missing-null";
    seventy_thousand_rules = "seventy-thousand-rules";
    generated_pivot = "generated-pivot";
    service_on_the_same_node = "service-on-the-same-node";
    masqueraded_node_port = "masqueraded-node-port";
    mixed_service = "mixed-service";
    refused_backend = "refused-backend";
}
