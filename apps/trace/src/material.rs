//! What surfaces do with light.

use crate::sampler::Sampler;
use crate::vector::{Vector, vector};

/// What a surface is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Material {
    /// Chalk: light leaves in all directions.
    Diffuse { albedo: Vector },
    /// A mirror with a colour; `blur` is the size of the unevenness.
    Metal { albedo: Vector, blur: f64 },
    /// Chalk under a clear lacquer, which mirrors more the flatter one looks at it.
    Lacquer { albedo: Vector },
    /// Clear glass, darkened by `tint` at each passage.
    Glass { tint: Vector },
}

/// How a path goes on after a hit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scatter {
    /// In all directions: the lamp is asked for separately.
    Spread { albedo: Vector },
    /// In one direction, carrying the share `weight` of the light.
    Beam { direction: Vector, weight: Vector },
    /// Nowhere.
    Absorb,
}

/// The refractive index of [`Material::Glass`].
const GLASS_INDEX: f64 = 1.5;
/// How much glass and lacquer mirror when looked at straight.
const MIRROR_MIN: f64 = 0.04;

impl Material {
    /// Decides how light that arrives along `direction` goes on. `normal` points out of the body.
    pub(crate) fn scatter(
        &self,
        direction: Vector,
        normal: Vector,
        sampler: &mut Sampler,
    ) -> Scatter {
        match *self {
            Self::Diffuse { albedo } => Scatter::Spread { albedo },
            Self::Metal { albedo, blur } => metal(direction, normal, (albedo, blur), sampler),
            Self::Lacquer { albedo } => {
                let mirrored = schlick(MIRROR_MIN, -direction.dot(normal));
                if sampler.pair().0 < mirrored {
                    Scatter::Beam { direction: direction.reflected(normal), weight: Vector::ONE }
                } else {
                    Scatter::Spread { albedo }
                }
            }
            Self::Glass { tint } => glass(direction, normal, tint, sampler),
        }
    }
}

/// A direction around `normal`, the more likely the nearer to it (by the cosine).
pub(crate) fn spread_around(normal: Vector, sampler: &mut Sampler) -> Vector {
    let (x, y) = sampler.disc();
    let rest = 1.0 - x * x - y * y;
    let z = if rest > 0.0 { rest.sqrt() } else { 0.0 };
    let (side, up) = normal.basis();
    (side * x + up * y + normal * z).normalized()
}

fn metal(
    direction: Vector,
    normal: Vector,
    (albedo, blur): (Vector, f64),
    sampler: &mut Sampler,
) -> Scatter {
    let mut mirrored = direction.reflected(normal);
    if blur > 0.0 {
        mirrored = (mirrored + in_all_directions(sampler) * blur).normalized();
    }
    if mirrored.dot(normal) <= 0.0 {
        return Scatter::Absorb;
    }
    let edge = fifth_power(1.0 - mirrored.dot(normal));
    Scatter::Beam { direction: mirrored, weight: albedo.mix(Vector::ONE, edge) }
}

fn glass(direction: Vector, outward: Vector, tint: Vector, sampler: &mut Sampler) -> Scatter {
    let is_entering = direction.dot(outward) < 0.0;
    let (normal, ratio) =
        if is_entering { (outward, 1.0 / GLASS_INDEX) } else { (-outward, GLASS_INDEX) };
    let cosine = -direction.dot(normal);
    let under_root = 1.0 - ratio * ratio * (1.0 - cosine * cosine);
    let mirror = Scatter::Beam { direction: direction.reflected(normal), weight: Vector::ONE };
    if under_root <= 0.0 {
        return mirror;
    }
    let bent_cosine = under_root.sqrt();
    let outer_cosine = if is_entering { cosine } else { bent_cosine };
    if sampler.pair().0 < schlick(MIRROR_MIN, outer_cosine) {
        return mirror;
    }
    let bent = direction * ratio + normal * (ratio * cosine - bent_cosine);
    Scatter::Beam { direction: bent.normalized(), weight: tint }
}

/// A direction evenly spread over the sphere.
fn in_all_directions(sampler: &mut Sampler) -> Vector {
    let (x, y) = sampler.disc();
    let square = x * x + y * y;
    let rest = if square < 1.0 { (1.0 - square).sqrt() } else { 0.0 };
    vector(2.0 * x * rest, 2.0 * y * rest, 1.0 - 2.0 * square)
}

/// Schlick's estimate of how much is mirrored.
fn schlick(straight: f64, cosine: f64) -> f64 {
    straight + (1.0 - straight) * fifth_power(1.0 - cosine)
}

fn fifth_power(base: f64) -> f64 {
    let square = base * base;
    square * square * base
}
