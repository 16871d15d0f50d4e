//! The one scene: the word in beads on a dark, wet floor at dusk.

use crate::bvh::Bvh;
use crate::camera::{Camera, View};
use crate::letters::WELKIN;
use crate::material::Material;
use crate::sampler::SplitMix;
use crate::shape::{NEAREST, Panel, Ray, Sphere};
use crate::vector::{Vector, larger, vector};

/// How high the letters are.
const LETTER_HEIGHT: f64 = 1.5;
/// The space between two letters.
const LETTER_GAP: f64 = 0.42;
/// The size of a bead of a letter.
const BEAD_RADIUS: f64 = 0.105;
/// The distance between beads of one stroke.
const BEAD_STEP: f64 = 0.145;
/// Small balls thrown on the floor.
const N_PEBBLES: usize = 110;
/// The size of a floor tile.
const FLOOR_TILE: f64 = 1.1;

/// Everything that is in the picture, and the camera.
#[derive(Debug)]
pub struct Scene {
    spheres: Bvh,
    panel: Panel,
    camera: Camera,
    glow: Vector,
}

/// Where a ray ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Hit {
    /// On a body: the point, the normal out of the body, what it is made of.
    Body { point: Vector, normal: Vector, material: Material },
    /// On the lamp, which shines with this light.
    Lamp(Vector),
    /// In the sky, which shines with this light.
    Sky(Vector),
}

impl Scene {
    /// The scene of the demo.
    pub fn demo() -> Self {
        let mut spheres = word();
        spheres.extend(large_balls());
        scatter_pebbles(&mut spheres);
        Self {
            spheres: Bvh::new(spheres),
            panel: Panel::facing(
                vector(-4.2, 6.0, 4.4),
                vector(0.0, 0.4, 0.0),
                (2.6, 2.6),
                vector(1.0, 0.93, 0.84) * 13.0,
            ),
            camera: Camera::new(View {
                position: vector(-0.9, 1.75, 9.0),
                target: vector(0.0, 1.02, 0.0),
                half_height: 0.265,
                lens_radius: 0.05,
                focus_distance: 9.05,
            }),
            glow: vector(0.33, 0.032, -1.0).normalized(),
        }
    }

    pub(crate) fn camera(&self) -> &Camera {
        &self.camera
    }

    pub(crate) fn panel(&self) -> &Panel {
        &self.panel
    }

    /// Follows a ray to the first thing that it meets.
    pub(crate) fn hit(&self, ray: &Ray) -> Hit {
        let floor = floor_distance(ray);
        let sphere = self.spheres.nearest(ray, floor);
        let nearest = sphere.map_or(floor, |(distance, _)| distance);
        if self.panel.hit(ray, nearest).is_some() {
            return Hit::Lamp(self.panel.emission);
        }
        let point = ray.at(nearest);
        if let Some((_, sphere)) = sphere {
            let normal = (point - sphere.center) * (1.0 / sphere.radius);
            return Hit::Body { point, normal, material: sphere.material };
        }
        if floor < f64::INFINITY {
            return Hit::Body { point, normal: UP, material: floor_material(point) };
        }
        Hit::Sky(self.sky(ray.direction))
    }

    /// Whether something stands between the start of the ray and `limit`.
    pub(crate) fn is_blocked(&self, ray: &Ray, limit: f64) -> bool {
        floor_distance(ray) < limit || self.spheres.is_blocked(ray, limit)
    }

    /// Dusk: blue above, orange at the horizon, and a glow where the sun went.
    fn sky(&self, direction: Vector) -> Vector {
        let height = larger(direction.y, 0.0);
        let low = 1.0 - height;
        let low_4 = low * low * low * low;
        let low_16 = low_4 * low_4 * low_4 * low_4;
        let toward = larger(direction.dot(self.glow), 0.0);
        let toward_4 = toward * toward * toward * toward;
        let toward_16 = toward_4 * toward_4 * toward_4 * toward_4;
        let toward_64 = toward_16 * toward_16 * toward_16 * toward_16;
        let toward_256 = toward_64 * toward_64 * toward_64 * toward_64;
        let toward_4096 = {
            let toward_1024 = toward_256 * toward_256 * toward_256 * toward_256;
            toward_1024 * toward_1024 * toward_1024 * toward_1024
        };
        vector(0.045, 0.10, 0.27)
            + vector(0.13, 0.17, 0.27) * low_4
            + vector(0.62, 0.26, 0.08) * (low_16 * (0.3 + 0.7 * toward_4))
            + vector(0.46, 0.17, 0.02) * (toward_16 * low_4)
            + vector(0.85, 0.34, 0.06) * toward_256
            + vector(9.0, 5.8, 2.6) * toward_4096
    }
}

const UP: Vector = vector(0.0, 1.0, 0.0);

/// The distance to the floor, or infinity.
fn floor_distance(ray: &Ray) -> f64 {
    let distance = -ray.origin.y / ray.direction.y;
    if ray.direction.y < 0.0 && distance > NEAREST { distance } else { f64::INFINITY }
}

/// Dark tiles of two shades.
fn floor_material(point: Vector) -> Material {
    let column = (point.x / FLOOR_TILE).floor();
    let row = (point.z / FLOOR_TILE).floor();
    let half = (column + row) * 0.5;
    let is_light = half - half.floor() > 0.25;
    let albedo = if is_light { vector(0.115, 0.125, 0.155) } else { vector(0.045, 0.05, 0.075) };
    Material::Lacquer { albedo }
}

/// The beads of the letters, from coral over violet to turquoise.
fn word() -> Vec<Sphere> {
    let mut width = -LETTER_GAP;
    for letter in WELKIN {
        width += letter.width * LETTER_HEIGHT + LETTER_GAP;
    }
    let mut beads: Vec<Sphere> = Vec::new();
    let mut left = -0.5 * width;
    for letter in WELKIN {
        for &(from, to) in letter.strokes {
            let place = |(x, y): (f64, f64)| {
                vector(left + x * LETTER_HEIGHT, y * LETTER_HEIGHT + BEAD_RADIUS, 0.0)
            };
            string_beads(place(from), place(to), width, &mut beads);
        }
        left += letter.width * LETTER_HEIGHT + LETTER_GAP;
    }
    beads
}

/// Puts beads on the line between two points, except where there is one already.
fn string_beads(from: Vector, to: Vector, width: f64, beads: &mut Vec<Sphere>) {
    let line = to - from;
    let length = line.dot(line).sqrt();
    let n_steps = (length / BEAD_STEP).ceil();
    let mut step = 0.0;
    while step <= n_steps {
        let center = from + line * (step / n_steps);
        step += 1.0;
        let is_taken = beads.iter().any(|bead| {
            let offset = bead.center - center;
            offset.dot(offset) < BEAD_RADIUS * BEAD_RADIUS * 0.5
        });
        if !is_taken {
            let material = Material::Lacquer { albedo: rainbow(center.x / width + 0.5) };
            beads.push(Sphere { center, radius: BEAD_RADIUS, material });
        }
    }
}

/// The colour at a share of the way along the word.
fn rainbow(share: f64) -> Vector {
    const STOPS: [Vector; 5] = [
        vector(0.95, 0.52, 0.09),
        vector(0.90, 0.17, 0.14),
        vector(0.66, 0.10, 0.48),
        vector(0.16, 0.24, 0.80),
        vector(0.04, 0.66, 0.68),
    ];
    let mut rest = larger(share, 0.0) * 4.0;
    for pair in STOPS.windows(2) {
        if let [from, to] = pair
            && rest <= 1.0
        {
            return from.mix(*to, rest);
        }
        rest -= 1.0;
    }
    STOPS[4]
}

/// The balls that are larger than a letter's bead, standing on the floor.
fn large_balls() -> [Sphere; 6] {
    let stand = |x, z, radius, material| Sphere { center: vector(x, radius, z), radius, material };
    let silver = Material::Metal { albedo: vector(0.92, 0.93, 0.95), blur: 0.0 };
    let gold = Material::Metal { albedo: vector(0.95, 0.68, 0.30), blur: 0.06 };
    let coral = Material::Lacquer { albedo: vector(0.92, 0.25, 0.16) };
    let pearl = Material::Lacquer { albedo: vector(0.80, 0.77, 0.72) };
    let glass = Material::Glass { tint: vector(0.97, 0.99, 0.99) };
    [
        stand(-2.75, -4.2, 1.45, silver),
        stand(4.95, -2.0, 0.5, coral),
        stand(1.3, 3.1, 0.4, glass),
        stand(-2.75, 2.75, 0.33, glass),
        stand(-0.75, 2.6, 0.25, gold),
        stand(0.2, -6.4, 0.75, pearl),
    ]
}

/// Throws small balls on the floor where nothing stands yet.
fn scatter_pebbles(spheres: &mut Vec<Sphere>) {
    let mut random = SplitMix::new(29);
    let mut n_left = N_PEBBLES;
    while n_left > 0 {
        let x = (random.unit() - 0.5) * 13.0;
        let z = 3.9 - random.unit() * 11.0;
        let size = random.unit();
        let radius = 0.055 + 0.11 * size * size;
        let (kind, shade) = (random.unit(), random.unit());
        let center = vector(x, radius, z);
        let is_free = spheres.iter().all(|other| {
            let offset = other.center - center;
            let apart = other.radius + radius + 0.06;
            offset.dot(offset) > apart * apart
        });
        let is_under_the_word = z > -0.35 && z < 0.35 && x > -4.0 && x < 4.0;
        n_left -= 1;
        if is_free && !is_under_the_word {
            spheres.push(Sphere { center, radius, material: pebble(kind, shade) });
        }
    }
}

fn pebble(kind: f64, shade: f64) -> Material {
    if kind < 0.5 {
        Material::Lacquer { albedo: rainbow(shade) }
    } else if kind < 0.68 {
        Material::Diffuse { albedo: vector(0.78, 0.76, 0.72) }
    } else if kind < 0.86 {
        Material::Metal { albedo: vector(0.9, 0.9, 0.92), blur: 0.3 * shade }
    } else {
        Material::Glass { tint: vector(0.96, 0.99, 0.98) }
    }
}
