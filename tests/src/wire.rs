//! A TAP device in the place of a pod's veth. It carries what test runs cannot: packets whose headers
//! lie outside the linear part of the socket buffer.

use flow::Direction;
use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write},
    process::Command,
    thread,
    time::Duration,
};

/// `struct virtio_net_hdr` (include/uapi/linux/virtio_net.h): flags, GSO type, header length, three
/// more. The header length is how much of the packet the kernel puts into the linear part.
const VIRTIO_HEADER: usize = 10;
/// What fits into a page lies in the linear part whatever the header says (`tun_alloc_skb`).
const BEYOND_A_PAGE: usize = 4200;
/// The least linear part that a TAP device takes.
pub const ETHERNET: usize = 14;

/// Two TAP devices: what comes in at one goes out at the other, without the network stack in between.
/// The near one stands for the host side of a pod's veth.
pub struct Wire {
    near: File,
    far: File,
    /// The near device's name.
    pub name: String,
    /// The near device's interface index.
    pub ifindex: u32,
    /// The far device's.
    pub far_ifindex: u32,
}

impl Wire {
    /// Makes both in this thread's network namespace; they go with it.
    pub fn new(name: &str) -> io::Result<Self> {
        let (near_name, far_name) = (format!("{name}-near"), format!("{name}-far"));
        let (near, far) = (tap(&near_name)?, tap(&far_name)?);
        redirect(&near_name, &far_name)?;
        redirect(&far_name, &near_name)?;
        let index = |name: &str| nix::net::if_::if_nametoindex(name).map_err(io::Error::from);
        Ok(Self { ifindex: index(&near_name)?, far_ifindex: index(&far_name)?, near, far, name: near_name })
    }

    /// The frame as the hook will see it: larger than a page, and without its outer tag, which the
    /// kernel takes off before any hook (`skb_vlan_untag`).
    pub fn as_judged(frame: &[u8]) -> Vec<u8> {
        let mut frame = frame.to_vec();
        frame.resize(frame.len().max(BEYOND_A_PAGE), 0);
        if matches!(frame[12..14], [0x81, 0x00] | [0x88, 0xa8]) {
            frame.drain(12..16);
        }
        frame
    }

    /// Sends a frame past the near device's hook of this direction, with so many bytes of it in the
    /// linear part. Answers whether it came out at the other end; `expected` says how long to look.
    pub fn carry(&self, direction: Direction, frame: &[u8], linear: usize, expected: bool) -> io::Result<bool> {
        let (mut from, mut to) = match direction {
            Direction::Outbound => (&self.near, &self.far),
            Direction::Inbound => (&self.far, &self.near),
        };
        let mut bytes = vec![0; VIRTIO_HEADER];
        bytes[2..4].copy_from_slice(&(linear as u16).to_ne_bytes());
        bytes.extend(frame);
        bytes.resize(bytes.len().max(VIRTIO_HEADER + BEYOND_A_PAGE), 0);
        from.write_all(&bytes)?;
        let mut buffer = [0; 1 << 16];
        for _ in 0..if expected { 1000 } else { 1 } {
            match to.read(&mut buffer) {
                Ok(_) => return Ok(true),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if expected {
                thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(false)
    }
}

fn tap(name: &str) -> io::Result<File> {
    let device = datapath::open_tap(name)?;
    // No word of the kernel's own on it: no IPv6, hence no neighbour discovery.
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    run("ip", &["link", "set", name, "up"])?;
    Ok(device)
}

fn redirect(from: &str, to: &str) -> io::Result<()> {
    run("tc", &["qdisc", "add", "dev", from, "clsact"])?;
    let everything = ["protocol", "all", "u32", "match", "u32", "0", "0"];
    let filter = ["filter", "add", "dev", from, "ingress", "prio", "100"];
    run("tc", &[&filter[..], &everything, &["action", "mirred", "egress", "redirect", "dev", to]].concat())
}

fn run(program: &str, words: &[&str]) -> io::Result<()> {
    match Command::new(program).args(words).status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{program} {}: {status}", words.join(" ")))),
    }
}
