//! `selftest`: every known way round a policy, tried on this node.

use crate::{
    ending::{Ending, Failure},
    escape,
    output::{self, Table},
    typed::{self, SelftestOutput},
};
use ::selftest::{self as corpus, Class, Missing, Options, Outcome, Purpose, Report, Row};
use lab::Family;
use std::io::Write as _;

pub(crate) fn run(typed: &typed::Selftest) -> miette::Result<Ending> {
    if typed.list {
        list(&chosen(&typed.classes)?, typed.output)?;
        return Ok(Ending::Done);
    }
    let options = Options {
        classes: typed.classes.clone(),
        family: typed.family,
        ends: typed.policy_at.map(Into::into),
        shown: Some(|name| escape::printable(name).into_owned()),
        stop: lab::stop_on_signals().map_err(|why| Failure::whole(&why))?,
    };
    let report = {
        let busy = output::busy("trying");
        corpus::run(&options, &mut |row| busy.now(row.class)).map_err(|why| Failure::whole(&why))?
    };
    show(&report, typed.output)?;
    let missing = if typed.allow_missing { Missing::Allowed } else { Missing::Counts };
    match report.worst(missing) {
        Outcome::Held => Ok(Ending::Done),
        Outcome::PassedBy => Ok(Ending::Reported),
        Outcome::NotRun | Outcome::Error => Err(no_answer(&report, missing).into()),
    }
}

fn chosen(names: &[String]) -> Result<Vec<Class>, Failure> {
    let all = corpus::classes();
    if let Some(name) = names.iter().find(|name| !all.iter().any(|class| class.name == **name)) {
        return Err(Failure::whole(&corpus::Error::NoSuchClass { name: name.clone() }));
    }
    Ok(all.into_iter().filter(|class| names.is_empty() || names.iter().any(|name| name == class.name)).collect())
}

fn list(classes: &[Class], form: SelftestOutput) -> Result<(), Failure> {
    let mut out = output::stdout();
    if form == SelftestOutput::Json {
        let all: Vec<_> = classes
            .iter()
            .map(|class| {
                serde_json::json!({
                    "class": class.name, "number": class.number, "reference": class.reference,
                    "tries": class.tries, "defence": class.defence,
                })
            })
            .collect();
        return print_json(&all);
    }
    let mut table = Table::new(["CLASS", "NUMBER", "DEFENCE", "SEEN IN", "TRIES"]);
    for class in classes {
        table.row([class.name, &class.number.to_string(), class.defence, class.reference, class.tries]);
    }
    table.write(&mut out).and_then(|()| out.flush()).map_err(output::failed)
}

fn show(report: &Report, form: SelftestOutput) -> Result<(), Failure> {
    let mut out = output::stdout();
    let table = match form {
        SelftestOutput::Json => return print_json(&report.rows),
        SelftestOutput::Wide => wide(report),
        SelftestOutput::Table => narrow(report),
    };
    let totals: Vec<String> =
        report.totals().iter().map(|(outcome, count)| format!("{count} {}", outcome.name())).collect();
    let mut written = table.write(&mut out);
    for row in &report.rows {
        if let Some(why) = &row.why {
            let ends = format!("{} IPv{} {}", row.class, number(row.family), row.ends.name());
            let line = format!("{ends}: {}: {why}", row.outcome.name());
            written = written.and_then(|()| writeln!(out, "{}", escape::printable(&line)));
        }
    }
    written.and_then(|()| writeln!(out, "{}", totals.join(", "))).and_then(|()| out.flush()).map_err(output::failed)
}

fn number(family: Family) -> u8 {
    family.into()
}

/// Packets that arrived of those that were to, and packets of attacks that arrived of those sent.
fn counts(rows: &[&Row]) -> [String; 2] {
    let sum = |attack: bool| {
        let all = rows.iter().map(|row| row.packets(|purpose| (purpose == Purpose::Attack) == attack));
        let [arrived, sent] = all.fold([0; 2], |[a, b], [c, d]| [a + c, b + d]);
        format!("{arrived}/{sent}")
    };
    [sum(false), sum(true)]
}

fn reasons(rows: &[&Row]) -> String {
    let all: std::collections::BTreeSet<_> = rows.iter().flat_map(|row| row.reasons()).collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

fn narrow(report: &Report) -> Table {
    let mut table = Table::new(["CLASS", "NUMBER", "FAMILY", "RESULT", "ALLOWED", "ATTACKS", "STOPPED AS"]);
    for (class, family, rows) in report.lines() {
        let worst = rows.iter().map(|row| row.outcome).max().unwrap_or(Outcome::NotRun);
        let number_in_corpus = rows.first().map_or(0, |row| row.number).to_string();
        let [allowed, attacks] = counts(&rows);
        let family = format!("IPv{}", number(family));
        table.row([class, &number_in_corpus, &family, worst.name(), &allowed, &attacks, &reasons(&rows)]);
    }
    table
}

fn wide(report: &Report) -> Table {
    let header = [
        "CLASS",
        "NUMBER",
        "FAMILY",
        "POLICY AT",
        "RESULT",
        "ALLOWED",
        "ATTACKS",
        "TIME",
        "DEFENCE",
        "SEEN IN",
        "STOPPED AS",
    ];
    let mut table = Table::new(header);
    for row in &report.rows {
        let [allowed, attacks] = counts(&[row]);
        table.row([
            row.class,
            &row.number.to_string(),
            &format!("IPv{}", number(row.family)),
            row.ends.name(),
            row.outcome.name(),
            &allowed,
            &attacks,
            &format!("{}ms", row.took_ms),
            row.defence,
            row.reference,
            &reasons(&[row]),
        ]);
    }
    table
}

fn no_answer(report: &Report, missing: Missing) -> Failure {
    let none =
        |row: &&Row| row.outcome == Outcome::Error || missing == Missing::Counts && row.outcome == Outcome::NotRun;
    let mut classes: Vec<&str> = report.rows.iter().filter(none).map(|row| row.class).collect();
    classes.dedup();
    let (what, hint) = (format!("no answer for {}", classes.join(", ")), "see why above");
    match missing {
        Missing::Allowed => Failure::new(what, hint),
        Missing::Counts => Failure::new(what, "see why above; --allow-missing leaves out what was not run"),
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|why| Failure::of("the answer cannot be written", why))?;
    let mut out = output::stdout();
    writeln!(out, "{}", escape::json(&text)).and_then(|()| out.flush()).map_err(output::failed)
}
