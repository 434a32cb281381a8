//! Namespaces, nodes, pods, Services and their EndpointSlices.

use super::{
    ReadError,
    field::{Field, Object, WholeOrText},
};
use crate::{
    cluster::{
        ContainerPort, EndpointSlice, MODE_LABEL, Mode, Namespace, Node, Owner, Pod, Service, ServicePort, SlicePort,
        TargetPort,
    },
    history::Entry,
    labels::{Labels, METADATA_NAME},
    policy::Protocol,
    services::SERVICE_NAME,
    stand_ins::STAND_IN,
};
use ipnet::IpNet;
use jiff::Timestamp;
use std::net::IpAddr;

pub(super) fn namespace(object: &Object<'_>) -> Result<Entry, ReadError> {
    let root = object.root();
    let metadata = root.at("metadata")?;
    let mut labels = labels_with_mode(&metadata)?;
    labels.insert(METADATA_NAME.to_owned(), object.name.clone());
    let annotations = metadata.at("annotations")?.labels()?;
    let terminating =
        metadata.at("deletionTimestamp")?.is_there() || root.at("status")?.at("phase")?.text()? == Some("Terminating");
    let namespace = Namespace { labels, annotations, terminating, source: Some(object.source()) };
    Ok(Entry::Namespace(object.name.clone(), namespace))
}

pub(super) fn node(object: &Object<'_>) -> Result<Entry, ReadError> {
    let root = object.root();
    let (metadata, spec, status) = (root.at("metadata")?, root.at("spec")?, root.at("status")?);
    let mut node = Node {
        labels: metadata.at("labels")?.labels()?,
        created: time(&metadata.at("creationTimestamp")?)?,
        source: Some(object.source()),
        ..Node::default()
    };
    for item in status.at("addresses")?.items()? {
        let class = item.at("type")?;
        if matches!(class.text()?, Some("InternalIP" | "ExternalIP")) {
            let field = item.at("address")?;
            node.addresses.push(address(&field, field.needed_text("write the node's address")?)?);
        }
    }
    let cidrs = spec.at("podCIDRs")?;
    for item in cidrs.items()? {
        node.pod_cidrs.push(pod_cidr(&item)?);
    }
    let cidr = spec.at("podCIDR")?;
    if node.pod_cidrs.is_empty() && cidr.is_there() {
        node.pod_cidrs.push(pod_cidr(&cidr)?);
    }
    Ok(Entry::Node(object.name.clone(), node))
}

fn pod_cidr(field: &Field<'_>) -> Result<IpNet, ReadError> {
    let text = field.needed_text("write a CIDR such as 10.244.1.0/24")?;
    let cidr = text.parse::<IpNet>();
    cidr.map(|c| c.trunc())
        .map_err(|_| field.wrong(format_args!("`{text}` is no CIDR; write one such as 10.244.1.0/24")))
}

pub(super) fn pod(object: &Object<'_>) -> Result<Pod, ReadError> {
    let root = object.root();
    let (metadata, spec, status) = (root.at("metadata")?, root.at("spec")?, root.at("status")?);
    let phase = status.at("phase")?.text()?.unwrap_or_default();
    let completed = matches!(phase, "Succeeded" | "Failed");
    let uid = metadata.at("uid")?;
    if uid.text()?.is_some_and(|text| text.starts_with(STAND_IN)) {
        return Err(uid.wrong("the API server gives no such UID; leave it out"));
    }
    let uid = uid.text()?.unwrap_or(&object.name).to_owned();
    let labels = if metadata.at("ownerReferences")?.is_there() {
        metadata.at("labels")?.labels()?
    } else {
        labels_with_mode(&metadata)?
    };
    let started = match time(&status.at("startTime")?)? {
        Some(started) => Some(started),
        None => time(&metadata.at("creationTimestamp")?)?,
    };
    let (ended, completed) = ended(&metadata, &status, completed)?;
    Ok(Pod {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        uid,
        labels,
        annotations: metadata.at("annotations")?.labels()?,
        addresses: pod_addresses(&status)?,
        node: spec.at("nodeName")?.text()?.unwrap_or_default().to_owned(),
        host_network: spec.at("hostNetwork")?.flag()?,
        ports: container_ports(&spec)?,
        owner: owner(&metadata)?,
        started,
        running_since: running_since(&status)?,
        ended,
        completed,
        tenure: None,
        source: Some(object.source()),
    })
}

fn pod_addresses(status: &Field<'_>) -> Result<Vec<IpAddr>, ReadError> {
    let mut all = Vec::new();
    for item in status.at("podIPs")?.items()? {
        let field = item.at("ip")?;
        if let Some(text) = field.text()?.filter(|text| !text.is_empty()) {
            all.push(address(&field, text)?);
        }
    }
    let first = status.at("podIP")?;
    if let Some(text) = first.text()?.filter(|text| !text.is_empty()) {
        let ip = address(&first, text)?;
        if !all.contains(&ip) {
            all.insert(0, ip);
        }
    }
    Ok(all)
}

/// When the first of its containers was started.
fn running_since(status: &Field<'_>) -> Result<Option<Timestamp>, ReadError> {
    let mut first: Option<Timestamp> = None;
    for list in ["containerStatuses", "initContainerStatuses"] {
        for container in status.at(list)?.items()? {
            let state = container.at("state")?;
            for phase in ["running", "terminated"] {
                let started = time(&state.at(phase)?.at("startedAt")?)?;
                first = first.into_iter().chain(started).min();
            }
        }
    }
    Ok(first)
}

/// When the pod stopped holding its addresses: when its last container ended, else when it was to
/// be gone at the latest; and whether it is completed: one that is being deleted, when its containers ended.
fn ended(metadata: &Field<'_>, status: &Field<'_>, completed: bool) -> Result<(Option<Timestamp>, bool), ReadError> {
    let deleted = time(&metadata.at("deletionTimestamp")?)?;
    if !completed && deleted.is_none() {
        return Ok((None, false));
    }
    let (mut last, mut running) = (None, false);
    for list in ["containerStatuses", "initContainerStatuses"] {
        for container in status.at(list)?.items()? {
            let finished = time(&container.at("state")?.at("terminated")?.at("finishedAt")?)?;
            running |= finished.is_none();
            last = last.max(finished);
        }
    }
    let ended = if running && !completed { deleted } else { last.or(deleted) };
    Ok((ended, completed || (last.is_some() && !running)))
}

/// The controlling owner reference of an object.
pub(super) fn owner(metadata: &Field<'_>) -> Result<Option<Owner>, ReadError> {
    for reference in metadata.at("ownerReferences")?.items()? {
        if reference.at("controller")?.flag()? {
            return Ok(Some(Owner {
                kind: reference.at("kind")?.needed_text("write the owner's kind")?.to_owned(),
                name: reference.at("name")?.needed_text("write the owner's name")?.to_owned(),
                uid: reference.at("uid")?.text()?.unwrap_or_default().to_owned(),
            }));
        }
    }
    Ok(None)
}

/// The container ports of a pod's `spec`: of containers, and of init containers that go on running.
pub(super) fn container_ports(spec: &Field<'_>) -> Result<Vec<ContainerPort>, ReadError> {
    let mut ports = Vec::new();
    for container in spec.at("containers")?.items()? {
        add_ports(&mut ports, &container)?;
    }
    for container in spec.at("initContainers")?.items()? {
        if container.at("restartPolicy")?.text()? == Some("Always") {
            add_ports(&mut ports, &container)?;
        }
    }
    Ok(ports)
}

fn add_ports(ports: &mut Vec<ContainerPort>, container: &Field<'_>) -> Result<(), ReadError> {
    for item in container.at("ports")?.items()? {
        let field = item.at("containerPort")?;
        let Some(port) = field.port()? else {
            return Err(field.wrong("missing; write a number from 1 to 65535"));
        };
        let name = item.at("name")?.text()?.filter(|name| !name.is_empty()).map(str::to_owned);
        ports.push(ContainerPort { name, port, protocol: protocol_or_tcp(&item)? });
    }
    Ok(())
}

pub(super) fn service(object: &Object<'_>) -> Result<Entry, ReadError> {
    let root = object.root();
    let (spec, status) = (root.at("spec")?, root.at("status")?);
    let mut service = Service {
        selector: spec.at("selector")?.labels()?,
        created: time(&root.at("metadata")?.at("creationTimestamp")?)?,
        source: Some(object.source()),
        ..Service::default()
    };
    let (first, list) = (spec.at("clusterIP")?, spec.at("clusterIPs")?);
    add_address(&mut service.cluster_ips, &first)?;
    for item in list.items()? {
        add_address(&mut service.cluster_ips, &item)?;
    }
    for item in spec.at("externalIPs")?.items()? {
        add_address(&mut service.external_ips, &item)?;
    }
    for item in status.at("loadBalancer")?.at("ingress")?.items()? {
        if item.at("ipMode")?.text()? != Some("Proxy") {
            add_address(&mut service.external_ips, &item.at("ip")?)?;
        }
    }
    for item in spec.at("ports")?.items()? {
        service.ports.push(service_port(&item)?);
    }
    Ok(Entry::Service((object.namespace.clone(), object.name.clone()), service))
}

fn service_port(item: &Field<'_>) -> Result<ServicePort, ReadError> {
    let field = item.at("port")?;
    let Some(port) = field.port()? else { return Err(field.wrong("missing; write a number from 1 to 65535")) };
    let target = item.at("targetPort")?;
    let target = match target.whole_or_text()? {
        // 0 is how the absence of a number is written.
        None | Some(WholeOrText::Whole(0)) => TargetPort::Number(port),
        Some(WholeOrText::Whole(number)) => TargetPort::Number(target.port_number(number)?),
        Some(WholeOrText::Text(name)) => TargetPort::Name(name.to_owned()),
    };
    let name = item.at("name")?.text()?.unwrap_or_default().to_owned();
    // 0: the API server has not given one yet.
    let node_port = item.at("nodePort")?;
    let node_port = match node_port.whole()? {
        None | Some(0) => None,
        Some(number) => Some(node_port.port_number(number)?),
    };
    Ok(ServicePort { name, port, protocol: protocol_or_tcp(item)?, target, node_port })
}

/// discovery.k8s.io/v1. Every endpoint counts, ready or not: what stands to one goes on.
pub(super) fn endpoint_slice(object: &Object<'_>) -> Result<Entry, ReadError> {
    let root = object.root();
    let labels = root.at("metadata")?.at("labels")?.labels()?;
    let service = labels.get(SERVICE_NAME).filter(|name| !name.is_empty()).cloned();
    let mut slice = EndpointSlice { service, source: Some(object.source()), ..EndpointSlice::default() };
    // Names are resolved by the client, which then talks to addresses.
    if root.at("addressType")?.text()? != Some("FQDN") {
        for item in root.at("endpoints")?.items()? {
            for item in item.at("addresses")?.items()? {
                add_address(&mut slice.addresses, &item)?;
            }
        }
    }
    for item in root.at("ports")?.items()? {
        let name = item.at("name")?.text()?.unwrap_or_default().to_owned();
        // Without a number: every port.
        let port = item.at("port")?.port()?;
        slice.ports.push(SlicePort { name, protocol: protocol_or_tcp(&item)?, port });
    }
    Ok(Entry::EndpointSlice((object.namespace.clone(), object.name.clone()), slice))
}

/// Adds an address, if the field has one that is not there yet; headless Services have `None`.
fn add_address(to: &mut Vec<IpAddr>, field: &Field<'_>) -> Result<(), ReadError> {
    if let Some(text) = field.text()?.filter(|text| !text.is_empty() && *text != "None") {
        let ip = address(field, text)?;
        if !to.contains(&ip) {
            to.push(ip);
        }
    }
    Ok(())
}

/// `protocol`, TCP when absent or empty, as pods and Services have it.
fn protocol_or_tcp(item: &Field<'_>) -> Result<Protocol, ReadError> {
    if item.at("protocol")?.text()? == Some("") { Ok(Protocol::Tcp) } else { protocol(item) }
}

/// `protocol`, TCP when absent.
pub(super) fn protocol(item: &Field<'_>) -> Result<Protocol, ReadError> {
    let field = item.at("protocol")?;
    let Some(text) = field.text()? else { return Ok(Protocol::Tcp) };
    let known = Protocol::ALL.into_iter().find(|protocol| protocol.name() == text);
    known.ok_or_else(|| field.wrong(format_args!("`{text}` is none of TCP, UDP, SCTP (in capitals)")))
}

fn address(field: &Field<'_>, text: &str) -> Result<IpAddr, ReadError> {
    let ip = text.parse::<IpAddr>();
    ip.map(|ip| ip.to_canonical())
        .map_err(|_| field.wrong(format_args!("`{text}` is no IP address; write one such as 10.0.0.1 or fd00::1")))
}

fn time(field: &Field<'_>) -> Result<Option<Timestamp>, ReadError> {
    let Some(text) = field.text()? else { return Ok(None) };
    let time = text.parse::<Timestamp>();
    time.map(Some).map_err(|_| field.wrong(format_args!("`{text}` is no time; write one such as 2026-01-02T15:04:05Z")))
}

/// The labels of an object whose mode label counts.
pub(super) fn labels_with_mode(metadata: &Field<'_>) -> Result<Labels, ReadError> {
    let field = metadata.at("labels")?;
    let labels = field.labels()?;
    if let Some(Err(problem)) = labels.get(MODE_LABEL).map(|text| text.parse::<Mode>()) {
        return Err(field.at(MODE_LABEL)?.wrong(problem));
    }
    Ok(labels)
}
