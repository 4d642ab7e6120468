//! The plugins that one route runs, sorted by hook once at load.
//!
//! Order is all that lives here; what a plugin does is its own business.

use std::sync::Arc;

use pingora_http::{RequestHeader, ResponseHeader};

use crate::retry::RetryPolicy;
use crate::size::SizeText;
use crate::{Hooks, Path, Plugin, Refusal, RequestInfo, Segment, Verdict, Why};

/// A plugin, and where it stands in the file.
#[derive(Clone)]
pub struct Link {
    /// Such as `routes[2].plugins[0].headers`; ends in the plugin's name.
    pub at: Path,
    /// The plugin.
    pub plugin: Arc<dyn Plugin>,
}

/// Whether a plugin of a rehearsed chain was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// Its `request`.
    Request,
    /// Not its `wait`: what it would answer is known outside only.
    LeftOut,
}

/// The plugins of a route: the common ones first, then its own.
pub struct Chain {
    /// Where each plugin stands in the file.
    places: Vec<Path>,
    request: Vec<(Hooks, Link)>,
    /// Last first.
    response: Vec<Arc<dyn Plugin>>,
    retry: Option<Arc<dyn Plugin>>,
    /// The plugin that says how large a body may be, and where it stands.
    body_limit: Option<(Path, u64)>,
    waits: bool,
}

impl Chain {
    /// A chain that runs `links` in this order on the request and in reverse on the response.
    pub fn new(links: Vec<Link>) -> Self {
        let places = links.iter().map(|link| link.at.clone()).collect();
        let hooked: Vec<(Hooks, Link)> = links.into_iter().map(|link| (link.plugin.hooks(), link)).collect();
        Self {
            places,
            waits: hooked.iter().any(|(hooks, _)| hooks.wait),
            retry: hooked
                .iter()
                .rfind(|(_, link)| link.plugin.retry().is_some())
                .map(|(_, link)| link.plugin.clone()),
            body_limit: hooked
                .iter()
                .rev()
                .find_map(|(_, link)| Some((link.at.clone(), link.plugin.body_limit()?))),
            response: hooked
                .iter()
                .rev()
                .filter(|(hooks, _)| hooks.response)
                .map(|(_, link)| link.plugin.clone())
                .collect(),
            request: hooked.into_iter().filter(|(hooks, _)| hooks.request || hooks.wait).collect(),
        }
    }

    /// Whether a plugin has to wait, so that `request_waiting` must be called.
    pub fn waits(&self) -> bool {
        self.waits
    }

    /// The name of each plugin, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.iter().filter_map(|at| match at.0.last()? {
            Segment::Key(name) => Some(name.as_str()),
            Segment::Index(_) => None,
        })
    }

    /// Whether any plugin sees the response.
    pub fn has_response(&self) -> bool {
        !self.response.is_empty()
    }

    /// Tells each plugin that a configuration which has it is put in force.
    pub fn put_in_force(&self) {
        self.request.iter().for_each(|(_, link)| link.plugin.put_in_force());
    }

    /// The plugins that see the request, in order.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.request.iter().map(|(_, link)| link)
    }

    /// Whether a request without proof of an identity is refused.
    pub fn authenticates(&self) -> bool {
        self.links().any(|link| link.plugin.authenticates())
    }

    /// The rules of retrying: of the last plugin that sets them, so a route's own before the common ones.
    pub fn retry(&self) -> Option<&RetryPolicy> {
        self.retry.as_ref().and_then(|plugin| plugin.retry())
    }

    /// How many bytes a body may have: by the last plugin that says so, so by a route's own before the common ones.
    pub fn body_limit(&self) -> Option<u64> {
        self.body_limit.as_ref().map(|(_, most)| *most)
    }

    /// Runs the request through a chain that does not wait, up to the first plugin that answers it.
    ///
    /// # Panics
    ///
    /// If the chain waits: to leave out the plugins that do, of all things those that ask whether a request
    /// may pass, must never happen quietly.
    pub fn request(&self, head: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        assert!(!self.waits, "a chain that waits is run by `request_waiting`");
        self.rehearse(head, info, |_, _, _| {})
    }

    /// The same for any chain, but that no plugin waits, and with a word after each: which plugin it was, and what it
    /// left of the head. For a request that is explained and never sent.
    pub fn rehearse(
        &self,
        head: &mut RequestHeader,
        info: &RequestInfo<'_>,
        mut tell: impl FnMut(&Path, Ran, &RequestHeader),
    ) -> Verdict {
        for (hooks, Link { at, plugin }) in &self.request {
            if hooks.request {
                let verdict = plugin.request(head, info);
                tell(at, Ran::Request, head);
                if !matches!(verdict, Verdict::Continue) {
                    return verdict;
                }
            }
            if hooks.wait {
                tell(at, Ran::LeftOut, head);
            }
        }
        if let Some((at, _)) = &self.body_limit {
            tell(at, Ran::Request, head);
        }
        self.announced(head)
    }

    /// The same as `request` for any chain. Only the plugins that wait box a future.
    pub async fn request_waiting(&self, head: &mut RequestHeader, info: &RequestInfo<'_>) -> Verdict {
        for (hooks, Link { plugin, .. }) in &self.request {
            if hooks.request {
                let verdict = plugin.request(head, info);
                if !matches!(verdict, Verdict::Continue) {
                    return verdict;
                }
            }
            if hooks.wait {
                let verdict = plugin.wait(head, info).await;
                if !matches!(verdict, Verdict::Continue) {
                    return verdict;
                }
            }
        }
        self.announced(head)
    }

    /// Refuses a body that is larger than it may be by the head's own words; what comes without them is for the gateway to
    /// count. After all plugins, since which of them sets the limit is known to the chain alone.
    fn announced(&self, head: &RequestHeader) -> Verdict {
        let (Some(most), Some(length)) = (self.body_limit(), head.headers.get(http::header::CONTENT_LENGTH))
        else {
            return Verdict::Continue;
        };
        // A number that is no u64 is larger than any.
        let length = length.to_str().ok().and_then(|length| length.trim().parse::<u64>().ok());
        if length.is_some_and(|length| length <= most) {
            return Verdict::Continue;
        }
        Verdict::Refuse(Refusal {
            status: 413,
            headers: Vec::new(),
            why: Why::TooLarge,
            detail: format!("more than {} are announced", SizeText(most)),
        })
    }

    /// Runs the head of a response through the chain, last plugin first. `request` is what the upstream was
    /// sent.
    pub fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, info: &RequestInfo<'_>) {
        for plugin in &self.response {
            plugin.response(head, request, info);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;

    use super::*;
    use crate::Reply;
    use crate::testing::{INFO, block_on, get, plugin};

    /// Writes its name into a header at each hook that it has; answers by itself where told to.
    struct Tracer {
        name: &'static str,
        hooks: Hooks,
        answers: bool,
    }

    impl Tracer {
        fn mark(&self, head: &mut RequestHeader, hook: &str) -> Verdict {
            head.append_header("trace", format!("{}.{hook}", self.name)).unwrap();
            match self.answers {
                true => {
                    Verdict::Respond(Reply { status: 403, headers: Vec::new(), body: bytes::Bytes::new() })
                }
                false => Verdict::Continue,
            }
        }
    }

    impl Plugin for Tracer {
        fn hooks(&self) -> Hooks {
            self.hooks
        }

        fn request(&self, head: &mut RequestHeader, _: &RequestInfo<'_>) -> Verdict {
            self.mark(head, "request")
        }

        fn wait<'a>(
            &'a self,
            head: &'a mut RequestHeader,
            _: &'a RequestInfo<'a>,
        ) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
            Box::pin(async move { self.mark(head, "wait") })
        }

        fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, _: &RequestInfo<'_>) {
            head.append_header("trace", format!("{}.{}", self.name, request.uri.path())).unwrap();
        }
    }

    const REQUEST: Hooks = Hooks { request: true, wait: false, response: false };
    const WAIT: Hooks = Hooks { request: false, wait: true, response: false };
    const RESPONSE: Hooks = Hooks { request: false, wait: false, response: true };
    const ALL: Hooks = Hooks { request: true, wait: true, response: true };

    fn chain(tracers: &[(&'static str, Hooks, bool)]) -> Chain {
        let tracer = |(name, hooks, answers): &(&'static str, Hooks, bool)| Link {
            at: Path::root().key(*name),
            plugin: Arc::new(Tracer { name, hooks: *hooks, answers: *answers }),
        };
        Chain::new(tracers.iter().map(tracer).collect())
    }

    fn trace(headers: &http::HeaderMap) -> Vec<&str> {
        headers.get_all("trace").iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn requests_run_in_order_and_responses_in_reverse() {
        let chain = chain(&[
            ("a", REQUEST, false),
            ("b", RESPONSE, false),
            ("c", ALL, false),
            ("d", RESPONSE, false),
        ]);
        let mut head = get("/x");
        assert!(matches!(block_on(chain.request_waiting(&mut head, &INFO)), Verdict::Continue));
        assert_eq!(trace(&head.headers), ["a.request", "c.request", "c.wait"]);
        let mut response = ResponseHeader::build(200, None).unwrap();
        chain.response(&mut response, &head, &INFO);
        assert_eq!(trace(&response.headers), ["d./x", "c./x", "b./x"]);
    }

    #[test]
    fn each_plugin_waits_in_its_own_place() {
        let chain =
            chain(&[("a", ALL, false), ("b", REQUEST, false), ("c", WAIT, false), ("d", REQUEST, false)]);
        assert!(chain.waits());
        let mut head = get("/");
        block_on(chain.request_waiting(&mut head, &INFO));
        assert_eq!(trace(&head.headers), ["a.request", "a.wait", "b.request", "c.wait", "d.request"]);
    }

    #[test]
    fn the_first_answer_ends_the_chain() {
        let waiting = chain(&[("a", WAIT, true), ("b", REQUEST, false)]);
        let mut head = get("/");
        assert!(
            matches!(block_on(waiting.request_waiting(&mut head, &INFO)), Verdict::Respond(reply) if reply.status == 403)
        );
        assert_eq!(trace(&head.headers), ["a.wait"]);

        let plain = chain(&[("a", REQUEST, false), ("b", REQUEST, true), ("c", REQUEST, false)]);
        let mut head = get("/");
        assert!(matches!(plain.request(&mut head, &INFO), Verdict::Respond(_)));
        assert_eq!(trace(&head.headers), ["a.request", "b.request"]);
    }

    #[test]
    #[should_panic(expected = "run by `request_waiting`")]
    fn a_chain_that_waits_is_not_run_without_waiting() {
        chain(&[("a", WAIT, false)]).request(&mut get("/"), &INFO);
    }

    #[test]
    fn a_rehearsal_tells_of_each_plugin_and_leaves_out_those_that_wait() {
        let chain = chain(&[
            ("a", REQUEST, false),
            ("b", ALL, false),
            ("c", WAIT, false),
            ("d", REQUEST, true),
            ("e", REQUEST, false),
        ]);
        let (mut head, mut told) = (get("/"), Vec::new());
        let verdict = chain.rehearse(&mut head, &INFO, |at, ran, head| {
            told.push((at.to_string(), ran, trace(&head.headers).len()));
        });
        assert!(matches!(verdict, Verdict::Respond(_)));
        let told: Vec<_> = told.iter().map(|(at, ran, length)| (&**at, *ran, *length)).collect();
        let (run, left_out) = (Ran::Request, Ran::LeftOut);
        assert_eq!(
            told,
            [("a", run, 1), ("b", run, 2), ("b", left_out, 2), ("c", left_out, 2), ("d", run, 3)]
        );
        assert_eq!(trace(&head.headers), ["a.request", "b.request", "d.request"]);
    }

    #[test]
    fn a_chain_tells_what_it_needs() {
        for (hooks, waits, has_response) in [
            (Hooks::default(), false, false),
            (REQUEST, false, false),
            (WAIT, true, false),
            (RESPONSE, false, true),
        ] {
            let chain = chain(&[("a", hooks, false)]);
            assert_eq!((chain.waits(), chain.has_response()), (waits, has_response), "{hooks:?}");
        }
    }

    #[test]
    fn the_last_rules_of_retrying_win() {
        let link = |plugin| Link { at: Path::root(), plugin };
        let retry = |attempts| link(plugin("retry", &format!("{{ attempts: {attempts} }}")).unwrap());
        let headers = link(plugin("headers", "{ request: { set: { a: b } } }").unwrap());
        assert!(Chain::new(vec![headers.clone()]).retry().is_none());
        let chain = Chain::new(vec![retry(3), retry(5), headers]);
        assert_eq!(chain.retry().unwrap().attempts(), 5);
    }

    #[test]
    fn the_last_body_limit_wins_and_is_judged_after_all_plugins() {
        let limit = |max: &str| Link {
            at: Path::root().key(format!("limit {max}")),
            plugin: plugin("body_limit", &format!("{{ max: {max} }}")).unwrap(),
        };
        let tracer = Link {
            at: Path::root().key("a"),
            plugin: Arc::new(Tracer { name: "a", hooks: REQUEST, answers: false }),
        };
        assert_eq!(Chain::new(vec![tracer.clone()]).body_limit(), None);
        let chain = Chain::new(vec![limit("1B"), limit("1KiB"), tracer]);
        assert_eq!(chain.body_limit(), Some(1024));
        for (length, refused) in [
            (None, false),
            (Some("0"), false),
            (Some("1024"), false),
            (Some("1025"), true),
            (Some("99999999999999999999"), true),
        ] {
            let mut head = get("/");
            if let Some(length) = length {
                head.insert_header("content-length", length).unwrap();
            }
            let mut told = Vec::new();
            let verdict = chain.rehearse(&mut head, &INFO, |at, _, _| told.push(at.to_string()));
            assert_eq!(told, ["a", "limit 1KiB"], "{length:?}");
            assert_eq!(matches!(verdict, Verdict::Refuse(_)), refused, "{length:?}");
            let verdict = block_on(chain.request_waiting(&mut head, &INFO));
            match verdict {
                Verdict::Refuse(refusal) => {
                    assert_eq!((refusal.status, refusal.why, refused), (413, Why::TooLarge, true));
                    assert_eq!(refusal.detail, "more than 1KiB are announced");
                }
                _ => assert!(!refused, "{length:?}"),
            }
        }
    }

    #[test]
    fn the_future_of_a_chain_can_move_between_threads() {
        fn movable<T: Send>(_: &T) {}
        let chain = chain(&[]);
        let mut head = get("/");
        movable(&chain.request_waiting(&mut head, &INFO));
    }
}
