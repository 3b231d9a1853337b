//! The REST protocol, against a server in the process.

use std::time::Duration;

use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use rstest::rstest;
use serde_json::json;

use super::fake::{Fault, Shared, start};
use super::*;
use crate::clock::Clock;

/// A table of the fake catalog, its files on the local disk.
async fn place(fake: &Shared, options: RestOptions) -> Result<Place> {
    let uri = format!("{}/start/", fake.lock().unwrap().url);
    let options = RestOptions { uri, warehouse: Some("ware house".into()), ..options };
    let catalog = Catalog::Rest(RestCatalog::connect(options, Clock::system()).await?);
    let name = TableName { namespace: vec!["a".into(), "b c".into()], name: "it/e ms".into() };
    Ok(Place { catalog: Arc::new(catalog), name, ..Place::new() })
}

fn faults(fake: &Shared, faults: &[Fault]) {
    fake.lock().unwrap().faults.extend(faults);
}

#[tokio::test]
async fn names_prefix_and_uri_are_as_the_catalog_wants_them() {
    let fake = start().await;
    let place = place(&fake, RestOptions::default()).await.unwrap();
    several_commits(place, 3, by_name()).await;
    let requests = fake.lock().unwrap().requests.clone();
    assert_eq!(requests[0], "GET /start/v1/config?warehouse=ware+house");
    let namespaces = "/there/v1/pre/fix/namespaces";
    assert_eq!(requests[1], format!("GET {namespaces}/a%1Fb%20c"));
    assert_eq!(requests[2], format!("POST {namespaces}"));
    assert_eq!(requests[4], format!("POST {namespaces}/a%1Fb%20c/tables"));
    let table = format!("POST {namespaces}/a%1Fb%20c/tables/it%2Fe%20ms");
    assert_eq!(requests.iter().filter(|request| **request == table).count(), 6);
}

#[tokio::test]
async fn a_schema_that_the_catalog_has_is_not_added_again() {
    let fake = start().await;
    let place = place(&fake, RestOptions::default()).await.unwrap();
    absent_columns(place, 3).await;
}

#[tokio::test]
async fn every_unclear_answer_is_cleared_up() {
    let fake = start().await;
    let place = place(&fake, RestOptions::default()).await.unwrap();
    let mut writer = place.create(options(3), plain()).await;
    writer.commit(&[(1, "a"), (2, "b")], &[]).await;
    // Done, whatever is said: found out at once.
    for (id, status) in (3..).zip([500, 502, 503, 504, 409, 429]) {
        faults(&fake, &[Fault::DoneThen(status)]);
        writer.commit(&[(id, "x")], &[id - 1]).await;
        writer.check(&place).await;
    }
    // Not done, or nobody knows: publishing again is safe.
    let unreadable = Fault::Only(503);
    for (id, first) in (20..).zip([
        vec![Fault::Only(503)],
        vec![Fault::Only(409)],
        vec![Fault::Only(500), unreadable],
        vec![Fault::DoneThen(500), unreadable],
        vec![Fault::DoneThen(409), unreadable],
    ]) {
        let (names, gone) = ([(id, "y")], [id - 1]);
        let plan = writer.plan(&names, &gone).await;
        let version = writer.table.state().version + 1;
        faults(&fake, &first);
        let error = writer.table.publish(&plan).await.unwrap().unknown();
        assert_eq!(error.kind(), Kind::Unavailable, "{first:?}");
        let published = writer.table.publish(&plan).await.unwrap();
        assert!(matches!(published, Published::Committed { version: v, .. } if v == version));
        writer.committed(&names, &gone, &plan);
        writer.check(&place).await;
    }
    // For good.
    for status in [400, 403, 404, 422] {
        let plan = writer.plan(&[(30, "z")], &[]).await;
        faults(&fake, &[Fault::Only(status)]);
        let error = writer.table.publish(&plan).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        assert!(error.report().len() < 450, "{}", error.report().len());
    }
    writer.commit(&[(31, "z")], &[]).await;
    writer.check(&place).await;
}

#[tokio::test]
async fn a_catalog_that_cannot_vend_credentials_now_is_waited_for() {
    let fake = start().await;
    let vended = RestOptions { vended_credentials: true, ..RestOptions::default() };
    let place = place(&fake, vended).await.unwrap();
    let mut writer = place.create(options(3), plain()).await;
    faults(&fake, &[Fault::DoneThen(400)]);
    writer.commit(&[(1, "a")], &[]).await;
    faults(&fake, &[Fault::Only(400)]);
    assert_eq!(writer.table.refresh().await.unwrap_err().kind(), Kind::Unavailable);
    writer.commit(&[(2, "b")], &[]).await;
    writer.check(&place).await;
}

#[tokio::test]
async fn a_commit_below_anothers_is_recognised() {
    let fake = start().await;
    let place = place(&fake, RestOptions::default()).await.unwrap();
    let mut writer = place.create(options(3), plain()).await;
    writer.commit(&[(1, "a"), (2, "b")], &[]).await;
    let plan = writer.plan(&[(3, "c")], &[1]).await;
    faults(&fake, &[Fault::DoneThen(500), Fault::Only(503)]);
    writer.table.publish(&plan).await.unwrap().unknown();
    let mut other = place.open(options(3)).await;
    let (places, rows, history) =
        (writer.places.clone(), writer.rows.clone(), writer.history.clone());
    std::mem::swap(&mut other, &mut writer.table);
    writer.committed(&[(3, "c")], &[1], &plan);
    writer.commit(&[(4, "d")], &[2]).await;
    // `other` is the first writer now. Its commit is in, below; what came on top it learns by a conflict.
    let mut first = support::Writer { table: other, places, rows, now: writer.now, history };
    assert!(matches!(
        first.table.publish(&plan).await.unwrap(),
        Published::Committed { version: 2, .. }
    ));
    first.committed(&[(3, "c")], &[1], &plan);
    let late = first.plan(&[(5, "e")], &[]).await;
    assert!(matches!(first.table.publish(&late).await.unwrap(), Published::Conflict));
    same_state(first.table.state(), writer.table.state());
}

#[tokio::test]
async fn tokens_are_asked_for_once_and_again_when_refused_or_old() {
    let fake = start().await;
    let credential = Some(Secret::new("the-client:the-password"));
    let place = place(&fake, RestOptions { credential, ..RestOptions::default() }).await.unwrap();
    let mut writer = place.create(options(3), plain()).await;
    let asked = || fake.lock().unwrap().tokens.clone();
    assert_eq!(
        asked(),
        [
            "grant_type=client_credentials&client_secret=the-password&scope=catalog&client_id=the-client"
        ]
    );
    // Revoked: a new one, once.
    fake.lock().unwrap().token = Some("none".into());
    writer.commit(&[(1, "a")], &[]).await;
    assert_eq!(asked().len(), 2);
    // Short-lived: another one each time.
    fake.lock().unwrap().expires_in = 0;
    fake.lock().unwrap().token = Some("none".into());
    writer.commit(&[(2, "a")], &[]).await;
    writer.commit(&[(3, "a")], &[]).await;
    assert_eq!(asked().len(), 4);
    assert_eq!(writer.table.state().version, 3);
}

#[tokio::test]
async fn a_token_is_used_until_its_end_while_no_other_can_be_had() {
    let fake = start().await;
    let credential = Some(Secret::new("the-client:the-password"));
    let place = place(&fake, RestOptions { credential, ..RestOptions::default() }).await.unwrap();
    let mut writer = place.create(options(3), plain()).await;
    let pass = async |seconds| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(seconds)).await;
        tokio::time::resume();
    };
    fake.lock().unwrap().no_tokens = Some((503, "starting"));
    pass(2000).await;
    writer.commit(&[(1, "a")], &[]).await;
    assert_eq!(fake.lock().unwrap().tokens.len(), 1);
    // In its last quarter another one is asked for.
    pass(1000).await;
    writer.commit(&[(2, "b")], &[]).await;
    assert!(fake.lock().unwrap().tokens.len() > 1);
    pass(1000).await;
    let plan = writer.plan(&[(3, "c")], &[]).await;
    let error = writer.table.publish(&plan).await.unwrap().unknown();
    assert_eq!(error.kind(), Kind::Unavailable);
    // Its length is the server's word.
    {
        let mut fake = fake.lock().unwrap();
        (fake.no_tokens, fake.expires_in) = (None, u64::MAX);
    }
    assert!(matches!(
        writer.table.publish(&plan).await,
        Ok(Published::Committed { version: 3, .. })
    ));
    writer.committed(&[(3, "c")], &[], &plan);
    // One that the catalog refuses is not used, whatever is left of its time.
    {
        let mut fake = fake.lock().unwrap();
        (fake.no_tokens, fake.token) = (Some((503, "")), Some("none".into()));
    }
    let plan = writer.plan(&[(4, "d")], &[]).await;
    let before = fake.lock().unwrap().tokens.len();
    let error = writer.table.publish(&plan).await.unwrap().unknown();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(fake.lock().unwrap().tokens.len() > before);
}

#[rstest]
#[case(
    401,
    r#"{"error":"invalid_client","error_description":"bad the-password"}"#,
    Kind::Refused,
    "401 invalid_client (check CDC_SINK_CATALOG_CREDENTIAL"
)]
#[case(400, r#"{"error":"invalid_scope"}"#, Kind::Refused, "400 invalid_scope (check")]
#[case(400, r#"{"error":"the-password"}"#, Kind::Refused, "400 (check")]
#[case(403, "the-password", Kind::Refused, "403 (check")]
#[case(
    501,
    r#"{"error":"NotImplemented"}"#,
    Kind::Refused,
    "501 (name the authorization server with --catalog-oauth2-server)"
)]
#[case(404, "", Kind::Refused, "404 (name the authorization server")]
#[case(200, r#"{"token":"the-password"}"#, Kind::Refused, "has no access_token")]
#[case(429, "", Kind::Unavailable, "429")]
#[case(503, "the-password", Kind::Unavailable, "503")]
#[tokio::test]
async fn who_gets_no_token_is_told_why(
    #[case] status: u16,
    #[case] body: &'static str,
    #[case] kind: Kind,
    #[case] said: &str,
) {
    let fake = start().await;
    fake.lock().unwrap().no_tokens = Some((status, body));
    let credential = Some(Secret::new("the-client:the-password"));
    let options = RestOptions { credential, ..RestOptions::default() };
    let error = place(&fake, options).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), kind);
    let uri = format!("{}/start", fake.lock().unwrap().url);
    let report = error.report();
    let what = format!(
        "cannot get a token for the Iceberg catalog {uri} from {uri}/v1/oauth/tokens: the answer"
    );
    assert!(report.starts_with(&what), "{report}");
    assert!(report.contains(said), "{report}");
    assert!(!format!("{error:?} {report}").contains("the-password"), "{report}");
    // Nothing else was asked.
    assert_eq!(fake.lock().unwrap().requests.len(), 1);
}

#[tokio::test]
async fn a_token_that_is_refused_is_not_tried_again_and_no_secret_shows() {
    let fake = start().await;
    fake.lock().unwrap().token = Some("another".into());
    let token = Some(Secret::new("the-token"));
    let options = RestOptions { token, ..RestOptions::default() };
    assert!(!format!("{options:?}").contains("the-token"));
    let error = place(&fake, options).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(!format!("{error:?} {}", error.report()).contains("the-token"));
    assert_eq!(fake.lock().unwrap().requests.len(), 1);
}

#[rstest]
#[case("sink:the-password", true)]
#[case("sink:the-password:", false)]
#[case("sink", false)]
#[tokio::test]
async fn a_user_and_a_password_go_with_each_request(#[case] auth: &str, #[case] right: bool) {
    let fake = start().await;
    fake.lock().unwrap().authorization = Some("Basic c2luazp0aGUtcGFzc3dvcmQ=");
    let options = RestOptions { auth: Some(Secret::new(auth)), ..RestOptions::default() };
    assert!(!format!("{options:?}").contains(auth));
    match place(&fake, options).await {
        Ok(place) => {
            several_commits(place, 3, by_name()).await;
            assert!(right);
        }
        Err(error) => {
            let report = error.report();
            assert!(!right && error.kind() == Kind::Refused, "{report}");
            assert!(report.contains("CDC_SINK_CATALOG_AUTH"), "{report}");
            assert!(!format!("{error:?} {report}").contains("the-password"), "{report}");
            assert_eq!(fake.lock().unwrap().requests.len(), 1);
        }
    }
}

#[tokio::test]
async fn storage_is_as_the_catalog_says() {
    let fake = start().await;
    let options = RestOptions { vended_credentials: true, ..RestOptions::default() };
    let place = place(&fake, options).await.unwrap();
    let folder = place.location().url().to_string();
    fake.lock().unwrap().extra = json!({
        "config": { "s3.access-key-id": "common", "s3.secret-access-key": "hidden", "s3.endpoint": "http://e" },
        "storage-credentials": [
            { "prefix": "file:///", "config": { "s3.access-key-id": "short" } },
            { "prefix": folder.trim_end_matches('/'), "config": { "s3.access-key-id": "long" } },
            { "prefix": format!("{folder}deeper/"), "config": { "s3.access-key-id": "deeper" } },
        ],
    });
    // Files on a local disk need no credentials; what was given for them is looked at alone.
    let table = place.create(super::options(3), plain()).await.table;
    let Catalog::Rest(rest) = &*place.catalog else { panic!() };
    let vended = rest.vend(&place.name).await.unwrap();
    assert_eq!(vended.get("s3.access-key-id"), Some("long"));
    assert_eq!(vended.get("s3.endpoint"), Some("http://e"));
    assert_eq!(vended.get("s3.region"), Some("default"));
    assert!(!format!("{vended:?} {table:?}").contains("hidden"));
    // Keys without a session are for good; those of a session that is over are asked for again.
    let keys = async |provider: &dyn CredentialProvider<Credential = AwsCredential>| {
        provider.get_credential().await.unwrap().key_id.clone()
    };
    let clock = Clock::system();
    let lasting = vended.provider(&clock, &place.catalog, &place.name);
    fake.lock().unwrap().extra = json!({
        "config": {
            "s3.access-key-id": "old", "s3.secret-access-key": "s", "s3.session-token": "t",
            "s3.session-token-expires-at-ms": clock.now_millis().to_string(),
        },
    });
    let expired = rest.vend(&place.name).await.unwrap();
    let expired = expired.provider(&clock, &place.catalog, &place.name);
    fake.lock().unwrap().extra = json!({
        "config": {
            "s3.access-key-id": "new", "s3.secret-access-key": "s", "s3.session-token": "t",
            "s3.session-token-expires-at-ms": (clock.now_millis() + 60_000).to_string(),
        },
    });
    let before = fake.lock().unwrap().requests.len();
    assert_eq!(
        [keys(&lasting).await, keys(&expired).await, keys(&expired).await],
        ["long", "new", "new"]
    );
    assert_eq!(fake.lock().unwrap().requests.len(), before + 1);
}
