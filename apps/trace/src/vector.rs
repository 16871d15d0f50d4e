//! Three numbers: a point, a direction or a colour.

use std::ops::{Add, AddAssign, Mul, Neg, Sub};

/// A point, a direction or a linear colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Vector {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) z: f64,
}

/// Makes a [`Vector`].
pub(crate) const fn vector(x: f64, y: f64, z: f64) -> Vector {
    Vector { x, y, z }
}

impl Vector {
    /// All zero: the origin, or black.
    pub(crate) const ZERO: Self = vector(0.0, 0.0, 0.0);
    /// All one: white.
    pub(crate) const ONE: Self = vector(1.0, 1.0, 1.0);

    /// The scalar product.
    pub(crate) fn dot(self, other: Self) -> f64 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    /// The vector product.
    pub(crate) fn cross(self, other: Self) -> Self {
        vector(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )
    }

    /// The same direction with length 1.
    pub(crate) fn normalized(self) -> Self {
        self * (1.0 / self.dot(self).sqrt())
    }

    /// The mirror image of this direction at a surface with the unit `normal`.
    pub(crate) fn reflected(self, normal: Self) -> Self {
        self - normal * (2.0 * self.dot(normal))
    }

    /// The largest of the three.
    pub(crate) fn largest(self) -> f64 {
        larger(self.x, larger(self.y, self.z))
    }

    /// The smaller of each coordinate.
    pub(crate) fn low(self, other: Self) -> Self {
        vector(smaller(self.x, other.x), smaller(self.y, other.y), smaller(self.z, other.z))
    }

    /// The larger of each coordinate.
    pub(crate) fn high(self, other: Self) -> Self {
        vector(larger(self.x, other.x), larger(self.y, other.y), larger(self.z, other.z))
    }

    /// The point `share` of the way to `other`.
    pub(crate) fn mix(self, other: Self, share: f64) -> Self {
        self * (1.0 - share) + other * share
    }

    /// Two unit vectors that with this unit vector make a right angle each.
    pub(crate) fn basis(self) -> (Self, Self) {
        let sign = if self.z < 0.0 { -1.0 } else { 1.0 };
        let a = -1.0 / (sign + self.z);
        let b = self.x * self.y * a;
        (
            vector(1.0 + sign * self.x * self.x * a, sign * b, -sign * self.x),
            vector(b, sign + self.y * self.y * a, -self.y),
        )
    }
}

/// The smaller of two; unlike `f64::min` its result for zeros of either sign is defined.
pub(crate) fn smaller(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

/// The larger of two; unlike `f64::max` its result for zeros of either sign is defined.
pub(crate) fn larger(a: f64, b: f64) -> f64 {
    if a > b { a } else { b }
}

impl Add for Vector {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        vector(self.x + other.x, self.y + other.y, self.z + other.z)
    }
}

impl AddAssign for Vector {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Vector {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        vector(self.x - other.x, self.y - other.y, self.z - other.z)
    }
}

impl Mul<f64> for Vector {
    type Output = Self;
    fn mul(self, factor: f64) -> Self {
        vector(self.x * factor, self.y * factor, self.z * factor)
    }
}

impl Mul for Vector {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        vector(self.x * other.x, self.y * other.y, self.z * other.z)
    }
}

impl Neg for Vector {
    type Output = Self;
    fn neg(self) -> Self {
        vector(-self.x, -self.y, -self.z)
    }
}
