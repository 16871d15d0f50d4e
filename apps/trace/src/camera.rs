//! The camera: a thin lens that looks at one point.

use crate::sampler::Sampler;
use crate::shape::Ray;
use crate::vector::{Vector, vector};

/// Where the camera stands and what it sees.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Camera {
    position: Vector,
    side: Vector,
    up: Vector,
    forward: Vector,
    half_height: f64,
    lens_radius: f64,
    focus_distance: f64,
}

/// How a [`Camera`] is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// Where the lens is.
    pub(crate) position: Vector,
    /// What is in the middle of the picture.
    pub(crate) target: Vector,
    /// Half the height of what is seen at distance 1.
    pub(crate) half_height: f64,
    /// The larger, the less is sharp.
    pub(crate) lens_radius: f64,
    /// What is sharp.
    pub(crate) focus_distance: f64,
}

impl Camera {
    /// Sets up the camera, upright.
    pub(crate) fn new(view: View) -> Self {
        let View { position, target, half_height, lens_radius, focus_distance } = view;
        let forward = (target - position).normalized();
        let side = forward.cross(vector(0.0, 1.0, 0.0)).normalized();
        let up = side.cross(forward);
        Self { position, side, up, forward, half_height, lens_radius, focus_distance }
    }

    /// A ray through the pixel at `x`, `y` of a picture of the given size, from a point of the lens.
    pub(crate) fn ray(&self, (x, y): (u32, u32), size: (u32, u32), sampler: &mut Sampler) -> Ray {
        let (jitter_x, jitter_y) = sampler.pair();
        let (width, height) = (f64::from(size.0), f64::from(size.1));
        let scale = 2.0 * self.half_height / height;
        let right = (f64::from(x) + jitter_x - width * 0.5) * scale;
        let down = (f64::from(y) + jitter_y - height * 0.5) * scale;
        let through = self.forward + self.side * right - self.up * down;
        let (lens_x, lens_y) = sampler.disc();
        let shift = (self.side * lens_x + self.up * lens_y) * self.lens_radius;
        let origin = self.position + shift;
        let target = self.position + through * self.focus_distance;
        Ray { origin, direction: (target - origin).normalized() }
    }
}
