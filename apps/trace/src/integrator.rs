//! Follows light backwards from the camera.

use crate::material::{Scatter, spread_around};
use crate::sampler::Sampler;
use crate::scene::{Hit, Scene};
use crate::shape::Ray;
use crate::vector::{Vector, larger};
use std::f64::consts::FRAC_1_PI;

/// Bounces after which weak paths may end early.
const BOUNCES_SURE: u32 = 3;
/// The most light that one path may bring to a matt surface; brighter ones would be specks.
const INDIRECT_MAX: f64 = 1.5;
/// How far along the normal new rays start.
const LIFT: f64 = 1e-5;

/// One path: the ray it is on and what it carries.
#[derive(Debug)]
struct Path {
    ray: Ray,
    /// What has been collected.
    light: Vector,
    /// The share of what the ray finds that reaches the camera.
    weight: Vector,
    /// Whether the path has left a matt surface at any time.
    is_indirect: bool,
    /// Whether the lamp was already asked for where the ray starts.
    is_lamp_counted: bool,
}

/// The light that arrives along `ray`.
pub(crate) fn radiance(scene: &Scene, ray: Ray, bounces_max: u32, sampler: &mut Sampler) -> Vector {
    let mut path = Path {
        ray,
        light: Vector::ZERO,
        weight: Vector::ONE,
        is_indirect: false,
        is_lamp_counted: false,
    };
    for bounce in 0..=bounces_max {
        if !path.bounce(scene, sampler) || (bounce >= BOUNCES_SURE && !path.survives(sampler)) {
            break;
        }
    }
    path.light
}

impl Path {
    /// Goes to the next surface. Returns whether the path goes on.
    fn bounce(&mut self, scene: &Scene, sampler: &mut Sampler) -> bool {
        let (point, normal, material) = match scene.hit(&self.ray) {
            Hit::Body { point, normal, material } => (point, normal, material),
            Hit::Sky(light) => {
                self.collect(light);
                return false;
            }
            Hit::Lamp(light) => {
                if !self.is_lamp_counted {
                    self.collect(light);
                }
                return false;
            }
        };
        match material.scatter(self.ray.direction, normal, sampler) {
            Scatter::Absorb => false,
            Scatter::Beam { direction, weight } => {
                let lift = if direction.dot(normal) > 0.0 { LIFT } else { -LIFT };
                self.ray = Ray { origin: point + normal * lift, direction };
                self.weight = self.weight * weight;
                self.is_lamp_counted = false;
                true
            }
            Scatter::Spread { albedo } => {
                let origin = point + normal * LIFT;
                self.weight = self.weight * albedo;
                self.collect(lamp_light(scene, origin, normal, sampler));
                self.ray = Ray { origin, direction: spread_around(normal, sampler) };
                self.is_indirect = true;
                self.is_lamp_counted = true;
                true
            }
        }
    }

    fn collect(&mut self, light: Vector) {
        let arrived = self.weight * light;
        let brightness = arrived.largest();
        let is_speck = self.is_indirect && brightness > INDIRECT_MAX;
        self.light += if is_speck { arrived * (INDIRECT_MAX / brightness) } else { arrived };
    }

    /// Ends weak paths by chance; those that go on weigh more, so the mean is the same.
    fn survives(&mut self, sampler: &mut Sampler) -> bool {
        let chance = larger(self.weight.largest(), 0.05);
        if chance >= 1.0 {
            return true;
        }
        self.weight = self.weight * (1.0 / chance);
        sampler.pair().0 < chance
    }
}

/// The light of the lamp that a white matt surface at `origin` sends in each direction.
fn lamp_light(scene: &Scene, origin: Vector, normal: Vector, sampler: &mut Sampler) -> Vector {
    let panel = scene.panel();
    let (u, v) = sampler.pair();
    let offset = panel.point(u, v) - origin;
    let square = offset.dot(offset);
    let distance = square.sqrt();
    let direction = offset * (1.0 / distance);
    let (here, there) = (direction.dot(normal), -direction.dot(panel.normal));
    if here <= 0.0 || there <= 0.0 {
        return Vector::ZERO;
    }
    if scene.is_blocked(&Ray { origin, direction }, distance) {
        return Vector::ZERO;
    }
    panel.emission * (here * there * panel.area * FRAC_1_PI / square)
}
