use std::time::Duration;

use super::*;
use crate::http::BODY_BYTES_MAX;

const FORM: &str = "application/x-www-form-urlencoded";

fn specs(masters: &[&str]) -> Vec<GroupSpec> {
    masters
        .iter()
        .map(|master| GroupSpec {
            name: None,
            master: master.parse().expect("an address"),
            replicas: Vec::new(),
        })
        .collect()
}

#[tokio::test]
async fn a_list_in_the_query_or_in_a_form_means_the_same() {
    let expected = event::Request::Add(specs(&["127.0.0.1:6379", "[::1]:6379", "redis-1:1"]));
    for (query, kind, body) in [
        ("?masters=127.0.0.1:6379,[::1]:6379,Redis-1:1", None, ""),
        ("?masters=127.0.0.1%3A6379%2C%5B%3A%3A1%5D%3A6379%2Credis-1%3A1", None, ""),
        ("?x=1&masters=127.0.0.1:6379&masters=[::1]:6379,redis-1:1", None, ""),
        ("?masters=127.0.0.1:6379,+[::1]:6379,,redis-1:1,", None, ""),
        ("", Some(FORM), "masters=127.0.0.1:6379,[::1]:6379,redis-1:1"),
        (
            "?x=1",
            Some("Application/X-WWW-Form-Urlencoded; charset=utf-8"),
            "y=2&masters=127.0.0.1%3A6379%2C%5B%3A%3A1%5D%3A6379&masters=redis-1:1",
        ),
        ("?masters=127.0.0.1:6379,[::1]:6379,redis-1:1", Some(FORM), "y=2"),
        ("?masters=127.0.0.1:6379,[::1]:6379,redis-1:1", Some("text/plain"), ""),
    ] {
        let rig = Rig::new(Loop::Commits, &[]);
        let reply = rig.send("POST", &format!("/master{query}"), kind, body).await;
        assert_eq!((reply.status, reply.text.as_str()), (StatusCode::OK, ""), "{query} {body}");
        assert!(!reply.headers.contains_key(header::CONTENT_TYPE), "{:?}", reply.headers);
        assert_eq!(rig.asked(), std::slice::from_ref(&expected), "{query} {body}");
        assert_eq!(rig.get("/master").await.text, "127.0.0.1:6379,[::1]:6379,redis-1:1");
    }
}

#[tokio::test]
async fn lists_are_added_replaced_and_removed() {
    let rig = Rig::new(Loop::Commits, &[("cache", "127.0.0.1:1")]);
    let text = async |method: &str, uri: &str| {
        let reply = rig.send(method, uri, None, "").await;
        assert_eq!((reply.status, reply.text.as_str()), (StatusCode::OK, ""), "{method} {uri}");
        rig.get("/master").await.text
    };
    let all = "127.0.0.1:2,127.0.0.1:3,127.0.0.1:1";
    assert_eq!(text("POST", "/master?masters=127.0.0.1:2,127.0.0.1:3").await, all);
    assert_eq!(text("POST", "/master?masters=127.0.0.1:2").await, all);
    assert_eq!(text("DELETE", "/master?masters=127.0.0.1:9,nobody").await, all);
    assert_eq!(text("DELETE", "/master?masters=127.0.0.1:2").await, "127.0.0.1:3,127.0.0.1:1");
    assert_eq!(text("DELETE", "/master?masters=cache").await, "127.0.0.1:3");
    assert_eq!(text("PUT", "/master?masters=[::1]:4,[::1]:5").await, "[::1]:4,[::1]:5");
    let form = rig.send("DELETE", "/master", Some(FORM), "masters=[::1]:4").await;
    assert_eq!(form.status, StatusCode::OK);
    assert_eq!(rig.get("/master").await.text, "[::1]:5");
    assert_eq!(rig.asked().last(), Some(&event::Request::Remove(vec!["[::1]:4".to_owned()])));
}

#[tokio::test]
async fn a_bad_list_is_explained_and_changes_nothing() {
    let rig = Rig::new(Loop::Commits, &[("cache", "127.0.0.1:1")]);
    for method in ["POST", "PUT", "DELETE"] {
        for (query, kind, body) in [
            ("", None, ""),
            ("?masters=", None, ""),
            ("?masters", None, ""),
            ("?masters=,%20,", None, ""),
            ("?master=127.0.0.1:1", None, ""),
            ("", Some(FORM), "masters="),
            ("", Some(FORM), "other=127.0.0.1:1"),
        ] {
            let reply = rig.send(method, &format!("/master{query}"), kind, body).await;
            let message = reply.error(400, "bad_request");
            assert!(message.contains("masters is missing or empty"), "{message}");
        }
        let both = rig.send(method, "/master?masters=a:1", Some(FORM), "masters=b:1").await;
        assert!(both.error(400, "bad_request").contains("both in the query and in the body"));
        for kind in [None, Some("application/json"), Some("multipart/form-data; boundary=x")] {
            let reply = rig.send(method, "/master", kind, "{\"masters\":\"a:1\"}").await;
            let message = reply.error(400, "bad_request");
            assert!(message.contains(FORM), "{message}");
        }
    }
    for (method, bad, why) in [
        ("POST", "127.0.0.1", "expected host:port"),
        ("POST", "127.0.0.1:70000", "the port must be"),
        ("PUT", "::1:6379", "an IPv6 address is written"),
        ("PUT", "127.0.0.1:0", "the port must be"),
        ("POST", "user@127.0.0.1:1", "has a character"),
        ("DELETE", "a/b", "neither an address"),
        ("DELETE", "two%20words", "neither an address"),
    ] {
        let uri = format!("/master?masters=127.0.0.1:7,{bad},127.0.0.1:8");
        let message = rig.send(method, &uri, None, "").await.error(400, "bad_request");
        let bad = bad.replace("%20", " ");
        assert!(message.contains(&format!("\"{bad}\"")), "{message}");
        assert!(message.contains(why) && message.contains("nothing was changed"), "{message}");
    }
    assert!(rig.asked().is_empty());
    assert_eq!(rig.get("/master").await.text, "127.0.0.1:1");
}

#[tokio::test]
async fn a_body_may_have_64_kib() {
    let rig = Rig::new(Loop::Commits, &[("cache", "127.0.0.1:1")]);
    let fits = format!("masters=127.0.0.1:2&x={}", "x".repeat(BODY_BYTES_MAX - 22));
    assert_eq!(fits.len(), BODY_BYTES_MAX);
    let reply = rig.send("POST", "/master", Some(FORM), &fits).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text);
    for more in ["x", &"x".repeat(500_000), &"x".repeat(5_000_000)] {
        let long = format!("{fits}{more}");
        for uri in ["/master", "/v1/groups/cache/resume"] {
            let reply = rig.send("POST", uri, Some(FORM), &long).await;
            assert!(reply.error(413, "too_large").contains("65536 bytes"));
        }
    }
    assert_eq!(rig.asked().len(), 1);
}

#[tokio::test]
async fn resume_shows_the_group_after_the_commit() {
    let rig = Rig::new(Loop::Commits, &[]);
    for (which, body) in [("cache", ""), ("cache", "{}"), ("%5B::1%5D:6379", " {\"by\": \"me\"} ")]
    {
        let mut halted = full_group();
        halted.status = StatusView::Halted;
        halted.status_reason = Some("it went wrong".to_owned());
        rig.shown.publish([(halted.name.clone(), Some(halted))]);
        let uri = format!("/v1/groups/{which}/resume");
        let reply = rig.send("POST", &uri, Some("application/json"), body).await;
        let group = &reply.read()["group"];
        assert_eq!((&group["name"], &group["status"]), (&json!("cache"), &json!("active")));
        assert_eq!(group["status_reason"], Value::Null);
    }
    let resume = event::Request::Resume(GroupName::new("cache").expect("a name"));
    assert_eq!(rig.asked(), [resume.clone(), resume.clone(), resume]);

    rig.send("POST", "/v1/groups/nobody/resume", None, "").await.error(404, "unknown_group");
    for body in ["{", "[]", "1", "group=cache"] {
        let reply = rig.send("POST", "/v1/groups/cache/resume", None, body).await;
        let message = reply.error(400, "bad_request");
        assert!(message.contains("must be a JSON object"), "{message}");
    }
    assert_eq!(rig.asked().len(), 3);
}

#[tokio::test]
async fn refusals_of_the_loop_have_their_status() {
    for (code, status, name) in [
        (RefusalCode::UnknownGroup, 404, "unknown_group"),
        (RefusalCode::UnknownInstance, 404, "unknown_instance"),
        (RefusalCode::Halted, 409, "halted"),
        (RefusalCode::Refused, 409, "refused"),
        (RefusalCode::Busy, 409, "busy"),
        (RefusalCode::NoLeader, 503, "no_leader"),
        (RefusalCode::NoQuorum, 503, "no_quorum"),
    ] {
        let rig = Rig::new(Loop::Refuses(code), &[("cache", "127.0.0.1:1")]);
        for (method, uri) in [
            ("POST", "/master?masters=127.0.0.1:1"),
            ("PUT", "/master?masters=127.0.0.1:1"),
            ("DELETE", "/master?masters=127.0.0.1:1"),
            ("POST", "/v1/groups/cache/resume"),
        ] {
            let message = rig.send(method, uri, None, "").await.error(status, name);
            assert_eq!(message, "because of this");
        }
    }
}

#[tokio::test]
async fn without_an_answer_the_outcome_is_unknown() {
    for kind in [Loop::Hangs, Loop::Ends] {
        let mut rig = Rig::new(kind, &[]);
        rig.context.limits.answer_timeout = Duration::from_millis(50);
        let reply = rig.send("POST", "/master?masters=127.0.0.1:1", None, "").await;
        let message = reply.error(504, "unknown_outcome");
        assert!(message.contains("read the history"), "{message}");
    }
}

#[tokio::test]
async fn requests_at_the_same_time_do_not_disturb_each_other() {
    let rig = Rig::new(Loop::Commits, &[("cache", "127.0.0.1:1")]);
    let sends = (0..200_u32).map(|n| {
        let router = router(rig.context.clone());
        let (method, uri) = match n % 4 {
            0 => ("POST", format!("/master?masters=127.0.0.1:{}", 2000 + n)),
            1 => ("GET", "/master".to_owned()),
            2 => ("GET", "/v1/groups".to_owned()),
            _ => ("GET", "/v1/groups/cache".to_owned()),
        };
        let request =
            Request::builder().method(method).uri(uri).body(Body::empty()).expect("a request");
        tokio::spawn(router.oneshot(request))
    });
    for send in sends.collect::<Vec<_>>() {
        let response = send.await.expect("no panic").expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(rig.asked().len(), 50);
    assert_eq!(rig.get("/v1/groups").await.read()["groups"].as_array().map(Vec::len), Some(51));
}
