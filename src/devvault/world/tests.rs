use http::{HeaderMap, HeaderValue, Method};

use super::super::faults::Fault;
use super::*;

const HOST: &str = "v.vault.azure.net";
const NOW: i64 = 1_700_000_000;

fn moment() -> Moment {
    Moment {
        now: Timestamp::from_second(NOW).unwrap(),
        fresh: Uuid::new_v4(),
    }
}

fn world(seed: &str) -> World {
    World::from_seed(Seed::parse(seed).unwrap(), moment().now).unwrap()
}

fn call(path: &str, query: &str, header: Option<(&'static str, String)>) -> Call {
    let mut headers = HeaderMap::new();
    if let Some((name, value)) = header {
        headers.insert(name, HeaderValue::from_str(&value).unwrap());
    }
    Call {
        method: Method::GET,
        path: path.to_owned(),
        query: Call::pairs(query),
        headers,
        body: Vec::new(),
    }
}

/// A token by IMDS, as a Pod gets one.
fn token(world: &mut World, resource: &str, client_id: &str) -> String {
    let query = format!("api-version=2018-02-01&resource={resource}&client_id={client_id}");
    let call = call(
        imds::TOKEN_PATH,
        &query,
        Some(("metadata", "true".to_owned())),
    );
    let body = world
        .answer(imds::HOST, &call, moment())
        .reply
        .unwrap()
        .body
        .unwrap();
    body["access_token"].as_str().unwrap().to_owned()
}

fn get(world: &mut World, path: &str, token: &str) -> Outcome {
    let header = Some(("authorization", format!("Bearer {token}")));
    world.answer(HOST, &call(path, "api-version=7.6", header), moment())
}

fn status(outcome: Outcome) -> u16 {
    outcome.reply.unwrap().status
}

#[test]
fn a_client_is_challenged_then_served_and_both_are_counted() {
    let mut world = world("vaults: {v: {secrets: {a: one}}}");
    let challenge = world.answer(HOST, &call("/secrets/a", "", None), moment());
    assert_eq!(status(challenge), 401);
    let token = token(&mut world, "https://vault.azure.net", "c");
    assert_eq!(status(get(&mut world, "/secrets/a", &token)), 200);
    assert_eq!(status(get(&mut world, "/secrets", &token)), 200);
    let requests = world.requests();
    assert_eq!(requests.challenges, 1);
    assert_eq!(
        (
            requests.count(HOST, Kind::Get),
            requests.count(HOST, Kind::List)
        ),
        (1, 1)
    );
    assert_eq!(requests.gets_of(HOST, "a"), 1);
    assert_eq!(requests.count(imds::HOST, Kind::Token), 1);
    assert_eq!(requests.statuses[HOST][&401], 1);
    world.reset_requests();
    assert_eq!(*world.requests(), Requests::default());
}

#[test]
fn the_resource_is_the_host_without_its_first_label() {
    let mut world = world("vaults: {v.vault.azure.cn: {}}");
    let reply = world.answer("v.vault.azure.cn", &call("/secrets", "", None), moment());
    let headers = reply.reply.unwrap().headers;
    let (_, challenge) = headers
        .iter()
        .find(|(name, _)| *name == "www-authenticate")
        .unwrap();
    assert!(
        challenge.contains("resource=\"https://vault.azure.cn\""),
        "{challenge}"
    );
}

#[test]
fn a_token_for_another_audience_is_rejected() {
    let mut world = world("vaults: {v: {}}");
    let token = token(&mut world, "https://management.azure.com/", "c");
    let reply = get(&mut world, "/secrets", &token).reply.unwrap();
    assert_eq!(reply.status, 401);
    assert!(
        reply
            .headers
            .iter()
            .any(|(_, value)| value.contains("AKV10022"))
    );
    assert_eq!(world.requests().rejected_tokens, 1);
}

#[test]
fn only_those_with_access_may_read() {
    let mut world = world("vaults: {v: {access: [Good], secrets: {a: one}}}");
    let bad = token(&mut world, "https://vault.azure.net", "bad");
    let reply = get(&mut world, "/secrets/a", &bad).reply.unwrap();
    assert_eq!(reply.status, 403);
    assert_eq!(
        reply.body.unwrap()["error"]["innererror"]["code"],
        "ForbiddenByRbac"
    );
    let good = token(&mut world, "https://vault.azure.net", "good");
    assert_eq!(status(get(&mut world, "/secrets/a", &good)), 200);
}

#[test]
fn faults_throttle_delay_drop_and_forbid() {
    let mut world = world("vaults: {v: {secrets: {a: one}}}");
    let token = token(&mut world, "https://vault.azure.net", "c");
    let mut throttle = Fault::status(429).times(1);
    throttle.retry_after = Some(7);
    let mut firewall = Fault::status(403).on(Kind::List);
    firewall.innererror_code = Some("ForbiddenByFirewall".to_owned());
    let slow = Fault::delay(Duration::from_millis(30)).times(1);
    let faults = vec![throttle, slow, firewall, Fault::drop().times(1)];
    world.set_faults("v", faults).unwrap();

    // The challenge doesn't use a fault up.
    assert_eq!(
        status(world.answer(HOST, &call("/secrets/a", "", None), moment())),
        401
    );
    let throttled = get(&mut world, "/secrets/a", &token).reply.unwrap();
    assert_eq!(throttled.status, 429);
    assert!(throttled.headers.contains(&("retry-after", "7".to_owned())));
    let slow = get(&mut world, "/secrets/a", &token);
    assert_eq!((slow.delay.as_millis(), status(slow)), (30, 200));
    let forbidden = get(&mut world, "/secrets", &token)
        .reply
        .unwrap()
        .body
        .unwrap();
    assert_eq!(
        forbidden["error"]["innererror"]["code"],
        "ForbiddenByFirewall"
    );
    assert!(get(&mut world, "/secrets/a", &token).reply.is_none());
    assert_eq!(world.requests().dropped[HOST], 1);
    world.set_faults("v", Vec::new()).unwrap();
    assert_eq!(status(get(&mut world, "/secrets", &token)), 200);
}

#[test]
fn faults_reach_imds_and_entra_but_no_unknown_vault() {
    let mut world = world("vaults: {v: {}}");
    world.set_faults("imds", vec![Fault::status(500)]).unwrap();
    world.set_faults("entra", vec![Fault::status(503)]).unwrap();
    assert_eq!(world.set_faults("w", Vec::new()).unwrap_err().status, 404);
    let imds = world.answer(imds::HOST, &call(imds::TOKEN_PATH, "", None), moment());
    assert_eq!(status(imds), 500);
    let entra = world.answer(
        entra::HOST,
        &call("/common/discovery/instance", "", None),
        moment(),
    );
    assert_eq!(status(entra), 503);
}

#[test]
fn expired_tokens_are_rejected() {
    let mut world = world("vaults: {v: {}}");
    let token = token(&mut world, "https://vault.azure.net", "c");
    world.expire_tokens(moment().now);
    assert_eq!(status(get(&mut world, "/secrets", &token)), 401);
}

#[test]
fn a_wrong_audience_fault_rejects_good_tokens() {
    let mut world = world("vaults: {v: {}}");
    let token = token(&mut world, "https://vault.azure.net", "c");
    let fault = Fault {
        wrong_audience: true,
        times: Some(1),
        ..Fault::default()
    };
    world.set_faults("v", vec![fault]).unwrap();
    assert_eq!(status(get(&mut world, "/secrets", &token)), 401);
    assert_eq!(status(get(&mut world, "/secrets", &token)), 200);
}

#[test]
fn hosts_that_are_not_served_are_refused_and_counted() {
    let mut world = world("vaults: {v: {}}");
    assert!(world.connect(HOST) && world.connect(entra::HOST));
    assert!(!world.connect("example.com"));
    assert_eq!(world.requests().refused_connects["example.com"], 1);
}

#[test]
fn a_vaults_name_must_be_a_host_name() {
    let mut world = World::default();
    for name in ["a_b", "", "a..b", entra::HOST, imds::HOST] {
        assert!(world.create_vault(name, None).is_err(), "{name}");
    }
}

#[test]
fn the_date_of_an_answer_is_what_the_vaults_own_clock_shows() {
    let mut world = world("vaults: {v: {secrets: {a: one}}}");
    let token = token(&mut world, "https://vault.azure.net", "c");
    let vault = world.vault("v").unwrap();
    vault.set_clock_ahead(SignedDuration::from_hours(-1));
    let reply = get(&mut world, "/secrets/a", &token).reply.unwrap();
    let date = reply.headers.iter().find(|(name, _)| *name == "date");
    assert_eq!(date.unwrap().1, "Tue, 14 Nov 2023 21:13:20 GMT");
}

#[test]
fn a_list_that_lags_shows_what_was_while_reads_show_what_is() {
    let mut world = world("vaults: {v: {secrets: {a: one}}}");
    let token = token(&mut world, "https://vault.azure.net", "c");
    let lag = Fault::lag(Duration::from_secs(10)).on(Kind::List);
    world.set_faults("v", vec![lag]).unwrap();
    world.vault("v").unwrap().delete("a", moment()).unwrap();
    let list = get(&mut world, "/secrets", &token).reply.unwrap();
    assert_eq!(list.body.unwrap()["value"].as_array().unwrap().len(), 1);
    assert_eq!(status(get(&mut world, "/secrets/a", &token)), 404);
}
