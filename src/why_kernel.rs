//! `why --kernel`: what the tables loaded on this node say of a connection, beside what its cluster's policies mean.

use crate::{
    ending::Ending,
    escape, output,
    socket::{self, encoded},
    typed::{Why, WhyOutput},
};
use agent::{Answer, End, Side};
use std::io::{self, Write as _};

pub(crate) fn run(typed: &Why) -> miette::Result<Ending> {
    let path = format!("/why?from={}&to={}", encoded(&typed.from), encoded(&typed.to));
    let (text, answer): (String, Answer) = socket::ask(&typed.socket, &path)?;
    let mut out = output::stdout();
    let shown = match typed.output {
        WhyOutput::Json => out.write_all(escape::json(&text).as_bytes()),
        WhyOutput::Text => show(&answer, &mut out),
    };
    shown.and_then(|()| out.flush()).map_err(output::failed)?;
    Ok(if answer.differs() { Ending::Reported } else { Ending::Done })
}

fn show(answer: &Answer, out: &mut impl io::Write) -> io::Result<()> {
    let mut line = |text: String| writeln!(out, "{}", escape::printable(&text));
    for pair in &answer.pairs {
        line(format!("{} -> {} {} {}", end(&pair.client), end(&pair.server), pair.protocol, pair.port))?;
        side("egress", &pair.egress).into_iter().chain(side("ingress", &pair.ingress)).try_for_each(&mut line)?;
    }
    if answer.left_out > 0 {
        line(format!("{} more pairs of addresses are not shown; ask about fewer pods", answer.left_out))?;
    }
    line(if answer.differs() {
        "the loaded tables DIFFER from what the policies mean".to_owned()
    } else {
        "the loaded tables say what the policies mean".to_owned()
    })
}

fn end(end: &End) -> String {
    let address = end.address.map(|address| address.to_string()).unwrap_or_default();
    match &end.pod {
        Some(pod) => format!("{pod} ({address})"),
        None => address,
    }
}

fn side(name: &str, side: &Side) -> Vec<String> {
    let kernel = match &side.kernel {
        None => "not covered by this node".to_owned(),
        Some(said) => {
            let verdict = if said.allows { "allowed" } else { "denied" };
            let rule = said.rule.as_ref().map(|rule| format!(" by {rule}")).unwrap_or_default();
            let staged = said.staged.as_ref().map(|staged| format!(", staged: {staged}")).unwrap_or_default();
            format!(
                "{verdict}, {}{rule}{staged} (mode {}, generation {}, epoch {})",
                said.reason, said.mode, said.generation, said.epoch
            )
        }
    };
    let differs = if side.differs { "  DIFFERS" } else { "" };
    vec![format!("  {name:7} kernel: {kernel}{differs}"), format!("          policy: {}", side.expected)]
}
