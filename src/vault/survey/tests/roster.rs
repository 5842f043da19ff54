//! Which objects there are, for who looks for some by name or tag.

use super::*;

#[test]
fn it_costs_no_page_more_where_the_vault_is_listed_anyway() {
    let mut world = World::with(60);
    world.survey.watch(MINUTE);
    world.run();
    assert_eq!(world.news, ["60 objects"]);
    for _ in 0..3 {
        assert_eq!(world.cycle(), (3, 0));
        assert!(world.news.is_empty(), "nothing is told twice");
    }
    world.put("new", 1);
    assert_eq!(world.cycle(), (3, 0));
    assert_eq!(world.news, ["61 objects"]);
    world.survey.unwatch();
    world.vault.remove("new");
    world.cycle();
    assert!(world.news.is_empty());
}

#[test]
fn the_vault_is_listed_though_no_object_of_it_is_wanted() {
    for mode in [Mode::Auto, Mode::Never] {
        let mut world = World::new(mode);
        assert!(world.survey.is_empty());
        for number in 0..30 {
            world.put(&format!("s{number:04}"), 1);
        }
        world.survey.watch(MINUTE);
        assert!(!world.survey.is_empty());
        assert_eq!(world.survey.shortest_interval(), Some(MINUTE));
        world.run();
        assert_eq!(
            (world.requests(), &*world.news),
            ((2, 0), &["30 objects".to_owned()][..])
        );
        world.vault.remove("s0003");
        assert_eq!(world.cycle(), (2, 0));
        assert_eq!(world.news, ["29 objects"]);
    }
}

#[test]
fn the_whole_list_is_read_where_reads_would_be_fewer() {
    let mut world = World::with(200);
    for number in 2..200 {
        world.survey.unwant(&id(&format!("s{number:04}")));
    }
    world.cycle();
    assert_eq!(
        world.cycle(),
        (0, 2),
        "two objects are not worth eight pages"
    );
    world.survey.watch(MINUTE);
    assert_eq!(world.cycle(), (8, 0));
    assert_eq!(world.news, ["200 objects"]);
}

#[test]
fn a_list_that_is_forbidden_is_told_and_told_again_when_it_is_not() {
    let mut world = World::with(3);
    world.survey.watch(MINUTE);
    world.run();
    world.lists = Err(VaultErrorKind::Forbidden);
    world.cycle();
    assert_eq!(world.news, ["list forbidden"]);
    world.lists = Ok(25);
    world.cycle();
    assert_eq!(world.news, ["3 objects"]);
}

#[test]
fn it_is_listed_at_once_when_asked() {
    let mut world = World::with(3);
    world.survey.watch(MINUTE);
    world.run();
    world.forget();
    world.put("new", 1);
    world.survey.relist();
    world.run();
    assert_eq!(world.news, ["4 objects"]);
}

#[test]
fn a_list_that_begins_anew_shows_no_object_twice() {
    let mut world = World::with(60);
    world.survey.watch(MINUTE);
    world.survey.advance(world.now);
    world.survey.take_requests();
    let page = world.page(None);
    world.survey.page_done(page, world.now);
    world.survey.take_requests();
    let expired = error(VaultErrorKind::Server { status: 400 });
    assert_eq!(world.survey.page_failed(&expired, world.now), None);
    world.run();
    assert_eq!(world.news, ["60 objects"]);
}
