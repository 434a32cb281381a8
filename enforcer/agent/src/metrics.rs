//! A [`Report`] as Prometheus reads it (the OpenMetrics text format).
//!
//! Always holds: a metric that has a name here is in every answer, with its help and type, also before it has a value;
//! names are only ever added.

use crate::report::{Count, Report};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, text::encode},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};
use std::{collections::BTreeMap, fmt};

/// What the answer is, for `Content-Type`.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one moment.
pub fn text(report: &Report) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("podfence");
    registry.register_collector(Box::new(Metrics(report.clone())));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Metrics(Report);

/// One value with its labels.
type Sample<'s> = (Vec<(&'static str, &'s str)>, u64);

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Encoder(&mut encoder);
        self.agent(&mut to)?;
        self.coverage(&mut to)?;
        self.tables(&mut to)?;
        self.packets(&mut to)?;
        self.log(&mut to)
    }
}

impl Metrics {
    fn agent(&self, to: &mut Encoder<'_, '_>) -> fmt::Result {
        let report = &self.0;
        let about = vec![
            ("version", report.version.as_str()),
            ("node", report.node.as_str()),
            ("attachment", report.attachment.as_str()),
            ("publishing", report.publishing.as_str()),
        ];
        to.gauges("agent", "The agent; its labels say what it is", [(about, 1)])?;
        to.gauge("start_time_seconds", "When the agent started", seconds(report.started_ns))?;
        let updated = seconds(report.source.updated_ns);
        to.gauge(
            "update_time_seconds",
            "When policies were last brought into force; 0 before the first time",
            updated,
        )?;
        to.counter("updates", "How often policies or links were brought into force", report.source.updates)?;
        let refused = u64::from(report.source.refused.is_some());
        to.gauge("source_refused", "1 while what the source says now is not in force", refused)?;
        to.gauge(
            "problems",
            "What is not as it should be, as `podfence status` lists it",
            report.problems().len() as u64,
        )?;
        let kept = report.kept_policies.len() as u64;
        to.gauge("policies_kept", "Policies that are gone and stay in force for now", kept)?;
        let check = &report.self_check;
        to.counter(
            "self_checks",
            "Questions asked of the loaded tables and of the reference evaluator",
            check.checked,
        )?;
        to.counter("self_check_drift", "Questions that the two answered differently", check.drifted)
    }

    fn coverage(&self, to: &mut Encoder<'_, '_>) -> fmt::Result {
        let report = &self.0;
        let mut by_mode: BTreeMap<&str, u64> = ["learn", "audit", "enforce"].map(|mode| (mode, 0)).into();
        for endpoint in report.endpoints.iter().filter(|endpoint| endpoint.not_covered.is_none()) {
            *by_mode.entry(&endpoint.mode).or_default() += 1;
        }
        let modes = by_mode.iter().map(|(mode, pods)| (vec![("mode", *mode)], *pods));
        to.gauges("endpoints", "Pods of this node that are covered, by mode", modes)?;
        let uncovered = report.endpoints.iter().filter(|endpoint| endpoint.not_covered.is_some()).count() as u64;
        to.gauge("endpoints_uncovered", "Pods of this node that are not covered", uncovered)?;
        let links = report.uncovered_links.iter().filter(|uncovered| !uncovered.on_purpose).count() as u64;
        to.gauge("links_uncovered", "Links to other namespaces that lead to no known pod", links)?;
        let overtaken = report.overtaken.len() as u64;
        to.gauge("hooks_overtaken", "Programs that stand before ours in a hook, or took its place", overtaken)?;
        let half = ["suspected", "shown"].map(|certainty| {
            let links = report.half_links.iter().filter(|link| link.certainty == certainty).count() as u64;
            (vec![("certainty", certainty)], links)
        });
        to.gauges("half_links", "Links of pods that only one half of connections crosses", half)?;
        to.counter("links_attached", "Links that came while the agent ran", report.window.links)?;
        let longest = report.window.longest_ns as f64 / 1e9;
        to.gauge_of("new_link_longest_seconds", "The longest that such a link had no program", longest)?;
        let unknown = report.window.known_longest_ns.max(report.window.unknown_longest_ns) as f64 / 1e9;
        to.gauge_of("unknown_pod_longest_seconds", "The longest that a link's pod was not known", unknown)?;
        let connections = report.endpoints.iter().flat_map(|endpoint| {
            let held = &endpoint.connections;
            let states = [("half-open", held.half_open), ("established", held.established), ("denied", held.denied)];
            states.map(|(state, held)| (vec![("pod", endpoint.pod.as_str()), ("state", state)], held))
        });
        to.gauges("pod_connections", "Entries of a pod in the connection table, by state", connections)
    }

    fn tables(&self, to: &mut Encoder<'_, '_>) -> fmt::Result {
        let tables = &self.0.tables;
        let filled = tables.iter().filter_map(|table| Some((vec![("table", table.name.as_str())], table.entries?)));
        to.gauges("table_entries", "Entries in a table of the kernel program", filled)?;
        let room = tables.iter().map(|table| (vec![("table", table.name.as_str())], table.room));
        to.gauges("table_room", "Entries a table has room for; of a ring buffer, bytes", room)?;
        let bytes = tables.iter().filter_map(|table| Some((vec![("table", table.name.as_str())], table.bytes?)));
        to.gauges("table_bytes", "Memory a table takes, as the kernel accounts it", bytes)
    }

    fn packets(&self, to: &mut Encoder<'_, '_>) -> fmt::Result {
        let counts = &self.0.counters;
        let each = |value: fn(&Count) -> u64| counts.iter().map(move |count| (of(count), value(count)));
        to.counters("packets", "Packets, by reason, direction and what was done", each(|count| count.packets))?;
        to.counters("bytes", "Bytes of these packets", each(|count| count.bytes))?;
        to.counters("events", "Events made of packets", each(|count| count.events))?;
        to.counters("events_suppressed", "Events not made, to bound their rate", each(|count| count.suppressed))?;
        to.counters("events_lost", "Events that found the ring full", each(|count| count.lost))
    }

    fn log(&self, to: &mut Encoder<'_, '_>) -> fmt::Result {
        let (events, log) = (&self.0.events, &self.0.log);
        to.counter("events_read", "Events read from the ring", events.read)?;
        to.counter("events_unreadable", "Events that named nothing", events.unreadable)?;
        to.counter(
            "entries_lost",
            "Connections whose last counters are lost",
            events.lost_entries + events.ended_lost,
        )?;
        to.counter("idle_judged", "Idle connections judged again after a change", events.idle_judged)?;
        to.counter(
            "shares_corrected",
            "Shares of pods in the connection table that had lost count and were corrected",
            events.corrected_shares,
        )?;
        let waited = &self.0.waited;
        let ended = [("found", waited.found), ("gave-up", waited.gave_up), ("crowded-out", waited.crowded_out)];
        let ended = ended.map(|(end, flows)| (vec![("end", end)], flows));
        to.counters("flows_waited", "Flows that waited until their pods were known, by what came of it", ended)?;
        to.counter("log_rows", "Rows handed to the flow log", log.rows)?;
        to.counter("log_rows_lost", "Rows that could not be written", log.lost)?;
        to.counter("log_failures", "How often the flow log did not take a row", log.failures)
    }
}

fn of(count: &Count) -> Vec<(&'static str, &str)> {
    let effect = match (count.allows, count.dropped) {
        (true, _) => "pass",
        (false, false) => "would-drop",
        (false, true) => "drop",
    };
    vec![("reason", &count.reason), ("direction", &count.direction), ("effect", effect)]
}

fn seconds(nanos: i64) -> u64 {
    u64::try_from(nanos / 1_000_000_000).unwrap_or_default()
}

/// The four ways in which metrics are written here.
struct Encoder<'a, 'e>(&'a mut DescriptorEncoder<'e>);

impl Encoder<'_, '_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn gauge_of(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    fn counters<'s>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'s>>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in samples {
            ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauges<'s>(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample<'s>>) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in samples {
            ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Connections, Endpoint, Table};
    use std::collections::BTreeSet;

    fn report() -> Report {
        Report {
            version: "1.2.3".to_owned(),
            node: "n1\"\n".to_owned(),
            endpoints: vec![
                Endpoint {
                    pod: "shop/web".to_owned(),
                    mode: "enforce".to_owned(),
                    connections: Connections { established: 7, ..Connections::default() },
                    ..Endpoint::default()
                },
                Endpoint { not_covered: Some("no link".to_owned()), ..Endpoint::default() },
            ],
            tables: vec![Table { name: "RULES".to_owned(), entries: Some(3), room: 10, bytes: None }],
            counters: vec![Count {
                reason: "no-rule".to_owned(),
                direction: "in".to_owned(),
                dropped: true,
                packets: 5,
                ..Count::default()
            }],
            ..Report::default()
        }
    }

    /// Names of metrics as samples have them.
    fn names(text: &str, prefix: &str) -> BTreeSet<String> {
        let starts = text.match_indices(prefix).map(|(at, _)| &text[at..]);
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        starts.map(|rest| rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())].to_owned()).collect()
    }

    #[test]
    fn what_the_report_says_is_counted() {
        let text = text(&report()).expect("text");
        for line in [
            "podfence_endpoints{mode=\"enforce\"} 1\n",
            "podfence_endpoints{mode=\"learn\"} 0\n",
            "podfence_endpoints_uncovered 1\n",
            "podfence_pod_connections{pod=\"shop/web\",state=\"established\"} 7\n",
            "podfence_packets_total{reason=\"no-rule\",direction=\"in\",effect=\"drop\"} 5\n",
            "podfence_table_entries{table=\"RULES\"} 3\n",
            "node=\"n1\\\"\\n\"",
            "# TYPE podfence_self_check_drift counter\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn every_metric_of_the_dashboard_is_one_of_ours_also_before_anything_happened() {
        let dashboard = include_str!("../../../deploy/grafana/podfence.json");
        let text = text(&Report::default()).expect("text");
        let mut known = BTreeSet::new();
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').expect("a name and a type");
            known.insert(if kind == "counter" { format!("{name}_total") } else { name.to_owned() });
        }
        let used = names(dashboard, "podfence_");
        assert!(used.len() > 20, "{used:?}");
        let strangers: Vec<_> = used.difference(&known).collect();
        assert!(strangers.is_empty(), "{strangers:?} in {known:?}");
        let unused: Vec<_> = known.difference(&used).collect();
        assert!(unused.is_empty(), "no panel shows {unused:?}");
    }
}
