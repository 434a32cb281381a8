//! A reflector and an API server that cuts connections, forgets, and is away for a while.
//!
//! The server here speaks as much of the protocol as a list and a watch take: pages, events, bookmarks, 410. It
//! gives pods; every other kind is empty.

use reflector::{Options, Reflector};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

/// Long, as the machine may be busy; never waited for where all is well.
const PATIENCE: Duration = Duration::from_secs(120);
const PAGE: usize = 2;

#[derive(Default)]
struct Objects {
    version: u64,
    pods: BTreeMap<String, Value>,
    events: Vec<(u64, &'static str, Value)>,
    /// Versions below it are forgotten.
    oldest: u64,
    /// Watchers are told in a bookmark that up to here nothing of theirs changed.
    bookmark: u64,
    /// As far as a watch of pods has been told.
    told: u64,
    /// Counts up; a connection of an earlier age ends.
    age: u64,
    away: bool,
    lists: usize,
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Objects>>);

impl Server {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.lock().expect("not poisoned")
    }

    /// Listens; the address.
    fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let at = listener.local_addr().expect("bound");
        let server = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = server.clone();
                thread::spawn(move || server.answer(stream));
            }
        });
        format!("http://{at}")
    }

    fn put(&self, name: &str, address: &str) {
        let mut objects = self.objects();
        objects.version += 1;
        let pod = json!({"metadata": {"name": name, "namespace": "shop", "uid": name,
                "resourceVersion": objects.version.to_string()},
            "spec": {"nodeName": "n1"}, "status": {"podIPs": [{"ip": address}]}});
        let known = objects.pods.insert(name.to_owned(), pod.clone()).is_some();
        let version = objects.version;
        objects.events.push((version, if known { "MODIFIED" } else { "ADDED" }, pod));
    }

    fn delete(&self, name: &str) {
        let mut objects = self.objects();
        objects.version += 1;
        let version = objects.version;
        let mut pod = objects.pods.remove(name).expect("it is there");
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        objects.events.push((version, "DELETED", pod));
    }

    /// Something else than pods changed, and who watches pods is told in a bookmark.
    fn bookmark(&self) {
        let version = {
            let mut objects = self.objects();
            objects.version += 1;
            objects.bookmark = objects.version;
            objects.version
        };
        let until = Instant::now() + PATIENCE;
        while self.objects().told < version {
            assert!(Instant::now() < until, "nobody watches pods and takes bookmarks");
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn cut(&self) {
        self.objects().age += 1;
    }

    /// As etcd's compaction does.
    fn forget(&self) {
        let mut objects = self.objects();
        objects.oldest = objects.version;
        objects.events.clear();
    }

    fn answer(&self, stream: TcpStream) -> Option<()> {
        let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
        let request = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        if self.objects().away {
            return None;
        }
        let target = request.split(' ').nth(1)?.to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let value = |name: &str| query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        let pods = path.ends_with("/pods");
        match value("watch") {
            Some(_) => {
                let bookmarks = value("allowWatchBookmarks") == Some(("allowWatchBookmarks", "true"));
                self.watch(stream, (pods, bookmarks), value("resourceVersion")?.1.parse().ok()?)
            }
            None => self.list(stream, pods, value("continue").map_or("", |(_, after)| after)),
        }
    }

    fn list(&self, mut stream: TcpStream, pods: bool, after: &str) -> Option<()> {
        let mut objects = self.objects();
        objects.lists += usize::from(pods);
        let all: Vec<_> = objects.pods.iter().filter(|(name, _)| pods && name.as_str() > after).collect();
        let more = if all.len() > PAGE { all[PAGE - 1].0.as_str() } else { "" };
        let items: Vec<_> = all.iter().take(PAGE).map(|(_, pod)| pod).collect();
        let list = json!({"kind": "List", "apiVersion": "v1", "items": items,
            "metadata": {"resourceVersion": objects.version.max(1).to_string(), "continue": more}});
        let text = list.to_string();
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n").ok()?;
        write!(stream, "content-length: {}\r\n\r\n{text}", text.len()).ok()
    }

    fn watch(&self, mut stream: TcpStream, (pods, bookmarks): (bool, bool), from: u64) -> Option<()> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).ok()?;
        let (mut seen, age) = (from, self.objects().age);
        loop {
            let objects = self.objects();
            if objects.age != age || objects.away {
                return None;
            }
            let mut lines = String::new();
            if pods && seen < objects.oldest {
                let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"});
                lines += &event("ERROR", &gone);
                seen = u64::MAX;
            }
            let told = seen;
            for (version, what, pod) in objects.events.iter().filter(|(version, ..)| pods && *version > told) {
                lines += &event(what, pod);
                seen = *version;
            }
            if pods && bookmarks && seen < objects.bookmark {
                seen = objects.bookmark;
                let metadata = json!({"resourceVersion": seen.to_string(), "creationTimestamp": null});
                lines += &event("BOOKMARK", &json!({"kind": "Pod", "apiVersion": "v1", "metadata": metadata}));
            }
            drop(objects);
            if !lines.is_empty() {
                write!(stream, "{:x}\r\n{lines}\r\n", lines.len()).ok()?;
            }
            if pods && seen != u64::MAX {
                self.objects().told = seen;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The type comes first, as every API server writes it; a JSON map of ours would have it last.
fn event(what: &str, object: &Value) -> String {
    format!("{{\"type\":\"{what}\",\"object\":{object}}}\n")
}

struct Watching {
    server: Server,
    reflector: Reflector,
    last: Vec<String>,
}

impl Watching {
    /// Waits until the reflector has what the server has.
    fn agrees(&mut self, about: &str) {
        let expected: Vec<_> = {
            let objects = self.server.objects();
            objects.pods.iter().map(|(name, pod)| format!("{name} {}", pod["status"]["podIPs"][0]["ip"])).collect()
        };
        let until = Instant::now() + PATIENCE;
        while self.last != expected {
            assert!(Instant::now() < until, "{about}: {:?} instead of {expected:?}", self.last);
            if let Some(seen) = self.reflector.changed(Duration::from_millis(100)) {
                assert!(seen.left_out.is_empty(), "{:?}", seen.left_out);
                let pods = seen.cluster.pods.iter();
                self.last = pods.map(|pod| format!("{} \"{}\"", pod.name, pod.addresses[0])).collect();
            }
        }
    }

    fn is_behind(&self) {
        let until = Instant::now() + PATIENCE;
        while self.reflector.troubles().is_empty() {
            assert!(Instant::now() < until, "nothing is said of a server that is away");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn what_the_server_has_is_had_whatever_becomes_of_connections() {
    let server = Server::default();
    for (index, name) in ["a", "b", "c", "d", "e"].iter().enumerate() {
        server.put(name, &format!("10.0.0.{index}"));
    }
    let kubeconfig = std::env::temp_dir().join(format!("podfence-reflector-{}", std::process::id()));
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server.start()}}], "users": [{"name": "u", "user": {}}]});
    std::fs::write(&kubeconfig, config.to_string()).expect("written");
    let options = Options { kubeconfig: Some(kubeconfig.clone()), context: None };
    let reflector = Reflector::start(options).expect("a configuration");
    let mut watching = Watching { server: server.clone(), reflector, last: Vec::new() };

    watching.agrees("a list of three pages");
    server.put("f", "10.0.0.9");
    server.put("a", "10.0.0.8");
    server.delete("b");
    watching.agrees("events");
    let lists = server.objects().lists;
    server.cut();
    server.put("g", "10.0.0.10");
    watching.agrees("a cut connection");
    assert_eq!(server.objects().lists, lists, "it goes on from where it was");
    server.bookmark();
    server.forget();
    server.cut();
    server.put("c", "10.0.0.7");
    watching.agrees("a cut connection after a bookmark");
    assert_eq!(server.objects().lists, lists, "it goes on from the bookmark");
    server.objects().away = true;
    watching.is_behind();
    server.delete("g");
    server.put("h", "10.0.0.11");
    server.forget();
    assert!(watching.reflector.changed(Duration::from_millis(100)).is_none());
    server.objects().away = false;
    watching.agrees("a server that was away and has forgotten what happened meanwhile");
    assert!(server.objects().lists > lists, "it has listed again");
    server.put("i", "10.0.0.12");
    watching.agrees("events after that");
    drop(watching);
    std::fs::remove_file(kubeconfig).expect("removed");
}
