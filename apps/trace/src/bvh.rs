//! A tree of boxes over the spheres, so that a ray looks at few of them.
//!
//! Built by halving at the median of the longest side. Ties are broken by the order given, so the
//! same spheres make the same tree.

use crate::shape::{NEAREST, Ray, Sphere};
use crate::vector::{Vector, larger, smaller, vector};

/// Spheres in one leaf.
const LEAF_LEN_MAX: usize = 3;
/// Depth of the walk; the halving makes a tree of depth `log2` of the number of spheres.
const STACK_LEN: usize = 64;

/// Spheres with the tree that finds them.
#[derive(Debug)]
pub(crate) struct Bvh {
    spheres: Vec<Sphere>,
    nodes: Vec<Node>,
}

/// A box. With `n_spheres` it is a leaf; else its children are the next node and `second`.
#[derive(Debug, Clone, Copy)]
struct Node {
    low: Vector,
    high: Vector,
    second: usize,
    first_sphere: usize,
    n_spheres: usize,
}

impl Bvh {
    /// Builds the tree.
    pub(crate) fn new(mut spheres: Vec<Sphere>) -> Self {
        let mut nodes = Vec::new();
        if !spheres.is_empty() {
            build(&mut spheres, 0, &mut nodes);
        }
        Self { spheres, nodes }
    }

    /// The nearest sphere that `ray` hits before `limit`, and the distance.
    pub(crate) fn nearest(&self, ray: &Ray, mut limit: f64) -> Option<(f64, &Sphere)> {
        let mut found = None;
        self.walk(ray, limit, |spheres| {
            for sphere in spheres {
                if let Some(distance) = sphere.hit(ray, limit) {
                    limit = distance;
                    found = Some((distance, sphere));
                }
            }
            Some(limit)
        });
        found
    }

    /// Whether any sphere is hit before `limit`.
    pub(crate) fn is_blocked(&self, ray: &Ray, limit: f64) -> bool {
        let mut is_hit = false;
        self.walk(ray, limit, |spheres| {
            is_hit = spheres.iter().any(|sphere| sphere.hit(ray, limit).is_some());
            (!is_hit).then_some(limit)
        });
        is_hit
    }

    /// Shows the leaves along the ray to `visit`, near ones first, until it returns `None`;
    /// otherwise it returns the distance beyond which nothing matters any more.
    fn walk<'a>(
        &'a self,
        ray: &Ray,
        mut limit: f64,
        mut visit: impl FnMut(&'a [Sphere]) -> Option<f64>,
    ) {
        let inverse = vector(1.0 / ray.direction.x, 1.0 / ray.direction.y, 1.0 / ray.direction.z);
        let enter = |node: usize| self.nodes.get(node)?.enter(ray.origin, inverse);
        let mut stack = [(0.0, 0_usize); STACK_LEN];
        let mut depth = 0;
        let mut next = enter(0).map(|distance| (distance, 0));
        loop {
            let Some((distance, index)) = next.take().or_else(|| {
                depth = usize::checked_sub(depth, 1)?;
                Some(stack[depth])
            }) else {
                return;
            };
            if distance >= limit {
                continue;
            }
            let node = &self.nodes[index];
            if node.n_spheres > 0 {
                let end = node.first_sphere + node.n_spheres;
                let Some(new_limit) = visit(&self.spheres[node.first_sphere..end]) else { return };
                limit = new_limit;
                continue;
            }
            let first = enter(index + 1).map(|distance| (distance, index + 1));
            let second = enter(node.second).map(|distance| (distance, node.second));
            let (near, far) = match (first, second) {
                (Some(a), Some(b)) if b.0 < a.0 => (Some(b), Some(a)),
                (Some(a), b) => (Some(a), b),
                (None, b) => (b, None),
            };
            if let Some(far) = far
                && depth < STACK_LEN
            {
                stack[depth] = far;
                depth += 1;
            }
            next = near;
        }
    }
}

impl Node {
    /// The distance at which a ray enters the box, if it does.
    fn enter(&self, origin: Vector, inverse: Vector) -> Option<f64> {
        let to_low = (self.low - origin) * inverse;
        let to_high = (self.high - origin) * inverse;
        let near = to_low.low(to_high);
        let far = to_low.high(to_high);
        let entry = larger(near.largest(), 0.0);
        let exit = smaller(far.x, smaller(far.y, far.z));
        (entry <= exit && exit > NEAREST).then_some(entry)
    }
}

/// Appends the tree over `spheres`, the first of which is number `first_sphere` of all.
fn build(spheres: &mut [Sphere], first_sphere: usize, nodes: &mut Vec<Node>) {
    let (mut low, mut high) = (spheres[0].low(), spheres[0].high());
    let (mut center_low, mut center_high) = (spheres[0].center, spheres[0].center);
    for sphere in spheres.iter() {
        (low, high) = (low.low(sphere.low()), high.high(sphere.high()));
        center_low = center_low.low(sphere.center);
        center_high = center_high.high(sphere.center);
    }
    let index = nodes.len();
    let n_spheres = spheres.len();
    nodes.push(Node { low, high, second: 0, first_sphere, n_spheres });
    if n_spheres <= LEAF_LEN_MAX {
        return;
    }
    let extent = center_high - center_low;
    let key: fn(&Sphere) -> f64 = if extent.x >= extent.y && extent.x >= extent.z {
        |sphere| sphere.center.x
    } else if extent.y >= extent.z {
        |sphere| sphere.center.y
    } else {
        |sphere| sphere.center.z
    };
    spheres.sort_by(|a, b| key(a).total_cmp(&key(b)));
    let half = n_spheres / 2;
    let (left, right) = spheres.split_at_mut(half);
    build(left, first_sphere, nodes);
    let second = nodes.len();
    build(right, first_sphere + half, nodes);
    nodes[index].second = second;
    nodes[index].n_spheres = 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::material::Material;
    use crate::sampler::SplitMix;

    #[test]
    fn the_tree_finds_what_a_plain_search_finds() {
        let mut random = SplitMix::new(7);
        let mut point = |size: f64| {
            let mut side = || (random.unit() - 0.5) * size;
            vector(side(), side(), side())
        };
        let material = Material::Diffuse { albedo: Vector::ONE };
        let spheres: Vec<_> =
            (0..300).map(|_| Sphere { center: point(10.0), radius: 0.3, material }).collect();
        let tree = Bvh::new(spheres.clone());
        for _ in 0..2000 {
            let ray = Ray { origin: point(14.0), direction: point(1.0).normalized() };
            let plain = spheres.iter().filter_map(|s| s.hit(&ray, 1e9)).min_by(f64::total_cmp);
            assert_eq!(tree.nearest(&ray, 1e9).map(|(distance, _)| distance), plain);
            assert_eq!(tree.is_blocked(&ray, 1e9), plain.is_some());
        }
        assert!(
            Bvh::new(Vec::new())
                .nearest(&Ray { origin: Vector::ZERO, direction: vector(0.0, 0.0, 1.0) }, 1e9)
                .is_none()
        );
    }
}
