//! What a ray can hit: spheres and one rectangle of light.

use crate::material::Material;
use crate::vector::{Vector, vector};

/// Hits nearer than this are the surface that the ray starts from.
pub(crate) const NEAREST: f64 = 1e-6;

/// A half-line with a direction of length 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ray {
    pub(crate) origin: Vector,
    pub(crate) direction: Vector,
}

impl Ray {
    /// The point at `distance`.
    pub(crate) fn at(&self, distance: f64) -> Vector {
        self.origin + self.direction * distance
    }
}

/// A ball.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sphere {
    pub(crate) center: Vector,
    pub(crate) radius: f64,
    pub(crate) material: Material,
}

impl Sphere {
    /// The distance of the first hit between [`NEAREST`] and `limit`.
    pub(crate) fn hit(&self, ray: &Ray, limit: f64) -> Option<f64> {
        let offset = self.center - ray.origin;
        let middle = offset.dot(ray.direction);
        let away = offset - ray.direction * middle;
        let inside = self.radius * self.radius - away.dot(away);
        if inside < 0.0 {
            return None;
        }
        let half = inside.sqrt();
        let near = middle - half;
        if near > NEAREST {
            return (near < limit).then_some(near);
        }
        let far = middle + half;
        (far > NEAREST && far < limit).then_some(far)
    }

    /// The lowest corner of the box around it.
    pub(crate) fn low(&self) -> Vector {
        self.center - vector(self.radius, self.radius, self.radius)
    }

    /// The highest corner of the box around it.
    pub(crate) fn high(&self) -> Vector {
        self.center + vector(self.radius, self.radius, self.radius)
    }
}

/// A rectangle that shines to one side, towards `normal`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    corner: Vector,
    edge_u: Vector,
    edge_v: Vector,
    pub(crate) normal: Vector,
    pub(crate) area: f64,
    pub(crate) emission: Vector,
}

impl Panel {
    /// A panel around `center` that faces `target`, as wide and high as given.
    pub(crate) fn facing(
        center: Vector,
        target: Vector,
        (width, height): (f64, f64),
        emission: Vector,
    ) -> Self {
        let normal = (target - center).normalized();
        let (side, up) = normal.basis();
        let (edge_u, edge_v) = (side * width, up * height);
        let corner = center - (edge_u + edge_v) * 0.5;
        Self { corner, edge_u, edge_v, normal, area: width * height, emission }
    }

    /// The point of the panel at shares `u` and `v` of its edges.
    pub(crate) fn point(&self, u: f64, v: f64) -> Vector {
        self.corner + self.edge_u * u + self.edge_v * v
    }

    /// The distance of the hit, if it is nearer than `limit` and on the bright side.
    pub(crate) fn hit(&self, ray: &Ray, limit: f64) -> Option<f64> {
        let facing = ray.direction.dot(self.normal);
        if facing >= 0.0 {
            return None;
        }
        let distance = (self.corner - ray.origin).dot(self.normal) / facing;
        if distance <= NEAREST || distance >= limit {
            return None;
        }
        let offset = ray.at(distance) - self.corner;
        let is_within = |edge: Vector| {
            let along = offset.dot(edge);
            along >= 0.0 && along <= edge.dot(edge)
        };
        (is_within(self.edge_u) && is_within(self.edge_v)).then_some(distance)
    }
}
