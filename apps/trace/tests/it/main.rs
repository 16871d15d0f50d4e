//! The promises of the crate on a small picture: the same everywhere, and the sum of its tiles.

use welkin_trace::{
    EXPECTED_HASH, JoinError, RenderConfig, Scene, Tile, TileImage, decode_tile, encode_tile, join,
    render_tile, tiles,
};

const SMALL: RenderConfig = RenderConfig { width: 48, height: 27, samples: 4, bounces_max: 6 };
const SMALL_HASH: &str = "1ef9dbbe023b4e59fdbd01aa75ffd189a06dcc83afcbcd515239efcdae4837a9";

fn render(scene: &Scene, config: &RenderConfig, tile: Tile, threads: usize) -> TileImage {
    render_tile(scene, config, tile, threads, &mut |_, _| {})
}

fn bands(n: u32) -> Vec<TileImage> {
    let scene = Scene::demo();
    tiles(&SMALL, n).into_iter().map(|tile| render(&scene, &SMALL, tile, 1)).collect()
}

#[test]
fn a_small_picture_has_its_hash() {
    let picture = join(&SMALL, &bands(1)).unwrap();
    assert_eq!(picture.hash_hex(), SMALL_HASH);
    assert_eq!((picture.width(), picture.height(), picture.rgb().len()), (48, 27, 48 * 27 * 3));
}

#[test]
fn the_demo_has_its_hash() {
    let config = RenderConfig::DEMO;
    let image = render(&Scene::demo(), &config, Tile::whole(&config), 2);
    assert_eq!(join(&config, &[image]).unwrap().hash_hex(), EXPECTED_HASH);
}

#[test]
fn tiles_make_the_whole_however_many_and_in_any_order() {
    let whole = join(&SMALL, &bands(1)).unwrap();
    for n in [2, 3, 4, 7, 26, 27] {
        let mut images: Vec<_> =
            bands(n).iter().map(|image| decode_tile(&encode_tile(image)).unwrap()).collect();
        images.reverse();
        assert_eq!(join(&SMALL, &images).unwrap(), whole, "{n} bands");
    }
}

#[test]
fn tiles_may_be_any_rectangles() {
    let scene = Scene::demo();
    let mut images = Vec::new();
    for (x, width) in [(0, 17), (17, 31)] {
        for (y, height) in [(0, 5), (5, 22)] {
            images.push(render(&scene, &SMALL, Tile { x, y, width, height }, 1));
        }
    }
    assert_eq!(join(&SMALL, &images).unwrap(), join(&SMALL, &bands(1)).unwrap());
}

#[test]
fn threads_change_nothing_and_each_row_is_told() {
    let scene = Scene::demo();
    let one = render(&scene, &SMALL, Tile::whole(&SMALL), 1);
    for threads in [0, 2, 5, 64] {
        let mut told = Vec::new();
        let image = render_tile(&scene, &SMALL, Tile::whole(&SMALL), threads, &mut |done, all| {
            told.push((done, all));
        });
        assert_eq!(image, one, "{threads} threads");
        assert_eq!(told, (1..=27).map(|done| (done, 27)).collect::<Vec<_>>());
    }
}

#[test]
fn an_empty_tile_is_rendered_but_not_joined() {
    let tile = Tile { x: 3, y: 3, width: 0, height: 2 };
    let image = render(&Scene::demo(), &SMALL, tile, 1);
    assert_eq!(join(&SMALL, &[image]), Err(JoinError::BadTile(tile)));
}

#[test]
fn wrong_sets_of_tiles_are_refused() {
    let images = bands(3);
    let [first, second, third] = images.as_slice() else { panic!("three bands") };
    let attempt = |chosen: &[&TileImage]| {
        let chosen: Vec<_> = chosen.iter().map(|&image| image.clone()).collect();
        join(&SMALL, &chosen).unwrap_err()
    };
    assert_eq!(attempt(&[]), JoinError::Missing { row: 0 });
    assert_eq!(attempt(&[first, third]), JoinError::Missing { row: 9 });
    assert_eq!(attempt(&[first, second, first]), JoinError::Overlap(first.tile));
    let short = TileImage { rgb: Vec::new(), ..third.clone() };
    assert_eq!(attempt(&[first, second, &short]), JoinError::BadTile(third.tile));
    let config = RenderConfig { samples: 5, ..SMALL };
    let other = TileImage { config, ..third.clone() };
    assert_eq!(attempt(&[first, second, &other]), JoinError::OtherPicture(third.tile));
    let empty = RenderConfig { width: 0, ..SMALL };
    assert!(matches!(join(&empty, &[]), Err(JoinError::Config(_))));
}

#[test]
fn the_png_reads_back() {
    let picture = join(&SMALL, &bands(2)).unwrap();
    let bytes = picture.to_png();
    assert_eq!(bytes, picture.to_png());
    let decoder = png::Decoder::new(std::io::Cursor::new(bytes));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (48, 27));
    assert_eq!(pixels, picture.rgb());
}
