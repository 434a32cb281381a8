//! A pod's resolver, configured as kubelet configures one: the cluster's name server, search domains, five dots. It
//! keeps nothing: each call of a real program without a cache asks again, and so does this.

use crate::{control::PodSpec, destination::Family};
use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
    proto::rr::Name,
};
use std::{io, net::IpAddr, str::FromStr, time::Duration};

/// Over what a name is looked up.
#[derive(Clone, Copy)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// Knows whom to ask.
pub(super) struct Resolver {
    servers: Vec<IpAddr>,
    search: Vec<Name>,
}

impl Resolver {
    pub(super) fn new(spec: &PodSpec) -> io::Result<Self> {
        let search = spec.search.iter().map(|domain| Name::from_str(domain)).collect::<Result<_, _>>();
        Ok(Self { servers: spec.dns.clone(), search: search.map_err(io::Error::other)? })
    }

    /// The addresses of a name in one family, asked over that family, in order.
    pub(super) async fn lookup(
        &self,
        name: &str,
        family: Family,
        over: Over,
        within: Duration,
    ) -> Result<Vec<IpAddr>, String> {
        let server = family.pick(&self.servers).ok_or_else(|| format!("no name server over {family}"))?;
        let server = match over {
            Over::Udp => NameServerConfig::udp(server),
            Over::Tcp => NameServerConfig::tcp(server),
        };
        let config = ResolverConfig::from_parts(None, self.search.clone(), vec![server]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        configure(builder.options_mut(), family, within);
        let resolver = builder.build().map_err(|error| error.to_string())?;
        let answer = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
        let mut addresses: Vec<IpAddr> = answer.iter().collect();
        addresses.sort();
        Ok(addresses)
    }
}

fn configure(options: &mut ResolverOpts, family: Family, within: Duration) {
    options.ndots = 5;
    options.attempts = 0;
    // The kernel's ephemeral ports, as a pod's C library uses them: never a port that somebody serves.
    options.os_port_selection = true;
    options.timeout = within;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = match family {
        Family::V4 => LookupIpStrategy::Ipv4Only,
        Family::V6 => LookupIpStrategy::Ipv6Only,
    };
}
