//! Why: every verdict has one of these.

use flow::ParseError;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal;)+) => {
        /// Why a packet is allowed or denied. Numbers from [`Reason::FIRST_ALLOW`] on allow; 0 denies.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        #[repr(u8)]
        pub enum Reason { $($(#[$doc])* $variant = $number,)+ }

        impl Reason {
            /// Every reason, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable name in logs, metrics and on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The reason of a number that one of them has; others deny as [`Reason::NoRule`].
            #[inline(always)]
            pub const fn from_known(number: u8) -> Self {
                match number {
                    $($number => Self::$variant,)+
                    _ => Self::NoRule,
                }
            }
        }
    };
}

reasons! {
    /// The pod is isolated in this direction and no rule allows it.
    NoRule = 0, "no-rule";
    /// A known pod whose generation is not published yet.
    NotReady = 1, "not-ready";
    /// A veth whose pod is not known yet (setting `unknownPod`).
    UnknownPod = 2, "unknown-pod";
    /// Belongs to what was denied or revoked before; a tombstone says so.
    StandingDenial = 3, "standing-denial";
    /// A standing connection that policy no longer allows.
    Revoked = 4, "revoked";
    /// From the pod with a source address that is not the pod's.
    Spoofed = 5, "spoofed";
    /// Unicast towards the pod for an address that is not the pod's.
    NotForThisPod = 6, "not-for-this-pod";
    /// Isolated, and no rule allows all protocols and ports from or to that peer.
    NoRulePortless = 7, "no-rule-for-protocol";
    /// From a node's address but forwarded by the node (masqueraded): no exemption, and no rule.
    NoRuleMasqueraded = 8, "no-rule-masqueraded";
    /// TCP that belongs to no known connection and opens none, and policy does not allow it.
    NotAdopted = 9, "not-adopted";
    /// The endpoint's share of half-open connections is full.
    HalfOpenFull = 10, "half-open-share-full";
    /// The endpoint's share of established connections is full.
    EstablishedFull = 11, "established-share-full";
    /// The connection table is full.
    TableFull = 12, "table-full";
    /// A later fragment whose first was not seen.
    FragmentWithoutFirst = 13, "fragment-without-first";
    /// An ICMP error about no known connection.
    UnrelatedIcmpError = 14, "unrelated-icmp-error";
    /// More ARP or neighbour discovery than the endpoint's rate.
    NeighborRate = 15, "neighbor-rate";
    /// ARP or neighbour discovery that claims what is not the pod's, with a wrong hop limit, or that no pod may send.
    NeighborForged = 16, "neighbor-forged";
    /// [`ParseError::TruncatedLink`].
    TruncatedLink = 17, "truncated-link-header";
    /// [`ParseError::TooManyVlanTags`].
    TooManyVlanTags = 18, "too-many-vlan-tags";
    /// [`ParseError::NotIp`].
    NotIp = 19, "not-ip";
    /// [`ParseError::TruncatedIp`].
    TruncatedIp = 20, "truncated-ip-header";
    /// [`ParseError::BadIpHeader`].
    BadIpHeader = 21, "bad-ip-header";
    /// [`ParseError::TooManyExtensionHeaders`].
    TooManyExtensionHeaders = 22, "too-many-extension-headers";
    /// [`ParseError::TruncatedTransport`].
    TruncatedTransport = 23, "truncated-transport-header";
    /// [`ParseError::BadTransportHeader`].
    BadTransportHeader = 24, "bad-transport-header";
    /// [`ParseError::HeadersTooLong`].
    HeadersTooLong = 25, "headers-too-long";
    /// [`ParseError::BadFragment`].
    BadFragment = 26, "bad-fragment";
    /// To a Service of whose backends policy allows some and refuses some.
    ServiceMixed = 27, "service-backends-mixed";
    /// To a Service without backends.
    ServiceNoBackends = 28, "service-without-backends";
    /// An answer of a DHCP server (RFC 2131, RFC 8415) from the pod.
    DhcpServer = 29, "dhcp-server";
    /// The pod's own policy has nothing against it; that of the client, a pod of this node, refuses this backend of
    /// the Service that the client opened to.
    RefusedByClient = 30, "refused-by-client";
    /// Belongs to an allowed connection.
    Established = 32, "established";
    /// A rule allows it.
    AllowedByRule = 33, "allowed-by-rule";
    /// No policy isolates the pod in this direction.
    NotIsolated = 34, "not-isolated";
    /// Made by the pod's own node (a probe, say).
    OwnNode = 35, "own-node";
    /// The pod to itself.
    Itself = 36, "itself";
    /// A standing connection, judged again after a change, and still allowed.
    Rejudged = 37, "rejudged";
    /// A connection older than its entry, allowed in the packet's own orientation.
    Adopted = 38, "adopted";
    /// A connection older than its entry, allowed in the orientation the pod's sockets show.
    AdoptedInReverse = 39, "adopted-in-reverse";
    /// An ICMP error about an allowed connection.
    RelatedIcmpError = 40, "related-icmp-error";
    /// ARP.
    Arp = 41, "arp";
    /// IPv6 neighbour discovery or multicast listener discovery.
    NeighborDiscovery = 42, "neighbor-discovery";
    /// A standing connection that policy no longer allows, and the operator keeps.
    Kept = 43, "kept";
}

impl Reason {
    /// The first number that allows.
    pub const FIRST_ALLOW: u8 = 32;

    /// Whether the packet is allowed.
    #[inline(always)]
    pub const fn allows(self) -> bool {
        self as u8 >= Self::FIRST_ALLOW
    }

    /// Whether packets with this verdict make events (law 7); the others are only counted.
    #[inline(always)]
    pub const fn reports(self) -> bool {
        !matches!(self, Self::Established | Self::RelatedIcmpError | Self::Arp | Self::NeighborDiscovery)
    }

    /// The reason of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| *reason as u8 == number)
    }
}

impl From<ParseError> for Reason {
    #[inline(always)]
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::TruncatedLink => Self::TruncatedLink,
            ParseError::TooManyVlanTags => Self::TooManyVlanTags,
            ParseError::NotIp => Self::NotIp,
            ParseError::TruncatedIp => Self::TruncatedIp,
            ParseError::BadIpHeader => Self::BadIpHeader,
            ParseError::TooManyExtensionHeaders => Self::TooManyExtensionHeaders,
            ParseError::TruncatedTransport => Self::TruncatedTransport,
            ParseError::BadTransportHeader => Self::BadTransportHeader,
            ParseError::HeadersTooLong => Self::HeadersTooLong,
            ParseError::BadFragment => Self::BadFragment,
        }
    }
}
