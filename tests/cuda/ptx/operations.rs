//! What the instructions compute that neither move data nor wait.

use std::cmp::Ordering::{Equal, Greater, Less};

/// Of up to three operands, each 32 or 64 bits, or a predicate that is not 0.
pub type Operation = fn(u64, u64, u64) -> u64;

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn bits(value: f32) -> u64 {
    value.to_bits() as u64
}

/// Subnormal numbers are 0 to an instruction with `ftz`.
fn flushed(value: f32) -> f32 {
    if value.is_subnormal() { 0.0_f32.copysign(value) } else { value }
}

/// An exact sum, rounded down. In f64 those of the kernels are exact: both terms are of about one size.
fn down(sum: f64) -> f32 {
    let near = sum as f32;
    if near as f64 > sum { near.next_down() } else { near }
}

/// An exact sum, rounded towards 0.
fn to_zero(sum: f64) -> f32 {
    let near = sum.abs() as f32;
    (if near as f64 > sum.abs() { near.next_down() } else { near }).copysign(sum as f32)
}

/// Four of eight bytes, each chosen by four bits: its number, and whether its sign takes its place.
fn permuted(bytes: u64, choice: u32) -> u64 {
    let byte = |place: u32| {
        let chosen = choice >> (4 * place) & 15;
        let byte = (bytes >> (8 * (chosen & 7))) as u8;
        let byte = if chosen & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 };
        (byte as u64) << (8 * place)
    };
    (0..4).map(byte).sum()
}

/// The comparison of a name, between operands of a type; those that end with `u` also hold where one is NaN.
macro_rules! comparison {
    ($name:expr, $of:expr) => {
        comparison!($name, $of, "eq" Some(Equal), "ne" Some(Less | Greater), "lt" Some(Less), "le" Some(Less | Equal),
            "gt" Some(Greater), "ge" Some(Greater | Equal), "neu" None | Some(Less | Greater), "ltu" None | Some(Less),
            "leu" None | Some(Less | Equal), "gtu" None | Some(Greater), "geu" None | Some(Greater | Equal))
    };
    ($name:expr, $of:expr, $($known:literal $order:pat),*) => {
        match $name {
            $($known => |a, b, _| matches!($of(a).partial_cmp(&$of(b)), $order) as u64,)*
            _ => return None,
        }
    };
}

/// The operation of an instruction's name.
pub fn operation(name: &str) -> Option<Operation> {
    if let Some((comparison, of)) = name.strip_prefix("setp.").and_then(|rest| rest.split_once('.')) {
        return Some(match of {
            "s32" => comparison!(comparison, |a| a as i32),
            "s16" => comparison!(comparison, |a| a as i16),
            "u16" | "b16" => comparison!(comparison, |a| a as u16),
            "u32" | "b32" => comparison!(comparison, |a| a as u32),
            "s64" => comparison!(comparison, |a| a as i64),
            "u64" | "b64" => comparison!(comparison, |a| a),
            "f32" => comparison!(comparison, f),
            _ => return None,
        });
    }
    Some(match name {
        "mov.u16" | "mov.b16" | "mov.u32" | "mov.b32" | "mov.f32" | "mov.u64" | "mov.b64" | "mov.pred"
        | "cvta.to.global.u64" => |a, _, _| a,
        "mov.b32 together" => |a, b, _| a as u16 as u64 | (b as u16 as u64) << 16,
        "mov.b64 together" => |a, b, _| a as u32 as u64 | b << 32,
        "cvt.u32.u64" | "cvt.u64.u32" => |a, _, _| a as u32 as u64,
        "cvt.s64.s32" => |a, _, _| a as i32 as u64,
        "cvt.s16.s8" => |a, _, _| a as i8 as u16 as u64,
        "cvt.s32.s8" => |a, _, _| a as i8 as u32 as u64,
        "cvt.s64.s8" => |a, _, _| a as i8 as u64,
        "cvt.rn.f32.s32" => |a, _, _| bits(a as i32 as f32),
        "cvt.sat.f32.f32" => |a, _, _| bits(if f(a) > 0.0 { f(a).min(1.0) } else { 0.0 }),
        "selp.b32" | "selp.s32" | "selp.u32" | "selp.f32" | "selp.b64" | "selp.u64" => {
            |a, b, p| if p != 0 { a } else { b }
        }

        "prmt.b32" => |a, b, choice| permuted(a as u32 as u64 | b << 32, choice as u32),

        "and.pred" => |a, b, _| (a != 0 && b != 0) as u64,
        "or.pred" => |a, b, _| (a != 0 || b != 0) as u64,
        "xor.pred" => |a, b, _| ((a != 0) != (b != 0)) as u64,
        "not.pred" => |a, _, _| (a == 0) as u64,
        "and.b32" | "and.b64" => |a, b, _| a & b,
        "or.b32" => |a, b, _| (a | b) as u32 as u64,
        "or.b64" => |a, b, _| a | b,
        "xor.b32" => |a, b, _| (a ^ b) as u32 as u64,
        "xor.b64" => |a, b, _| a ^ b,
        "not.b32" => |a, _, _| !a as u32 as u64,
        "not.b64" => |a, _, _| !a,
        "shl.b32" => |a, b, _| (a as u32).checked_shl(b as u32).unwrap_or(0) as u64,
        "shl.b64" => |a, b, _| a.checked_shl(b as u32).unwrap_or(0),
        "shr.u32" => |a, b, _| (a as u32).checked_shr(b as u32).unwrap_or(0) as u64,
        "shr.u64" => |a, b, _| a.checked_shr(b as u32).unwrap_or(0),
        "shr.s32" => |a, b, _| (a as i32 >> (b as u32).min(31)) as u32 as u64,
        "shr.s64" => |a, b, _| (a as i64 >> (b as u32).min(63)) as u64,

        "add.s32" => |a, b, _| (a as u32).wrapping_add(b as u32) as u64,
        "sub.s32" => |a, b, _| (a as u32).wrapping_sub(b as u32) as u64,
        "neg.s32" => |a, _, _| (a as u32).wrapping_neg() as u64,
        "min.s32" => |a, b, _| (a as i32).min(b as i32) as u32 as u64,
        "max.s32" => |a, b, _| (a as i32).max(b as i32) as u32 as u64,
        "min.u32" => |a, b, _| (a as u32).min(b as u32) as u64,
        "max.u32" => |a, b, _| (a as u32).max(b as u32) as u64,
        "mul.lo.s32" => |a, b, _| (a as u32).wrapping_mul(b as u32) as u64,
        "mad.lo.s32" => |a, b, c| (a as u32).wrapping_mul(b as u32).wrapping_add(c as u32) as u64,
        "mul.hi.s32" => |a, b, _| ((a as i32 as i64 * b as i32 as i64) >> 32) as u32 as u64,
        "mul.hi.u32" => |a, b, _| (a as u32 as u64 * b as u32 as u64) >> 32,
        "mul.wide.s32" => |a, b, _| (a as i32 as i64 * b as i32 as i64) as u64,
        "mul.wide.u32" => |a, b, _| a as u32 as u64 * b as u32 as u64,
        "div.s32" => |a, b, _| (a as i32).wrapping_div(b as i32) as u32 as u64,
        "rem.s32" => |a, b, _| (a as i32).wrapping_rem(b as i32) as u32 as u64,
        "div.u32" => |a, b, _| (a as u32 / b as u32) as u64,
        "rem.u32" => |a, b, _| (a as u32 % b as u32) as u64,
        "cvt.u16.u32" | "cvt.u32.u16" | "cvt.u16.u64" | "cvt.u64.u16" => |a, _, _| a as u16 as u64,
        "mul.wide.u16" => |a, b, _| a as u16 as u64 * b as u16 as u64,
        "mul.lo.s16" => |a, b, _| (a as u16).wrapping_mul(b as u16) as u64,
        "mul.hi.u16" => |a, b, _| ((a as u16 as u32 * b as u16 as u32) >> 16) as u64,
        "add.s16" => |a, b, _| (a as u16).wrapping_add(b as u16) as u64,
        "sub.s16" => |a, b, _| (a as u16).wrapping_sub(b as u16) as u64,
        "shr.s16" => |a, b, _| (a as i16 >> (b as u32).min(15)) as u16 as u64,
        "shr.u16" => |a, b, _| (a as u16).checked_shr(b as u32).unwrap_or(0) as u64,
        "shl.b16" => |a, b, _| (a as u16).checked_shl(b as u32).unwrap_or(0) as u64,
        "and.b16" => |a, b, _| (a & b) as u16 as u64,
        "xor.b16" => |a, b, _| (a ^ b) as u16 as u64,
        "not.b16" => |a, _, _| !a as u16 as u64,
        "mad.lo.s16" => |a, b, c| (a as u16).wrapping_mul(b as u16).wrapping_add(c as u16) as u64,
        // two products of halves of the first by the lowest bytes of the second
        "dp2a.lo.u32.u32" => |a, b, c| {
            let sum = (a as u16 as u32 * b as u8 as u32).wrapping_add((a as u32 >> 16) * (b as u32 >> 8 & 255));
            sum.wrapping_add(c as u32) as u64
        },
        "add.s64" => |a, b, _| a.wrapping_add(b),
        "sub.s64" => |a, b, _| a.wrapping_sub(b),
        "neg.s64" => |a, _, _| a.wrapping_neg(),
        "min.s64" => |a, b, _| (a as i64).min(b as i64) as u64,
        "max.s64" => |a, b, _| (a as i64).max(b as i64) as u64,
        "max.u64" => |a, b, _| a.max(b),
        "mul.lo.s64" => |a, b, _| a.wrapping_mul(b),
        "mad.lo.s64" => |a, b, c| a.wrapping_mul(b).wrapping_add(c),
        "mul.hi.u64" => |a, b, _| ((a as u128 * b as u128) >> 64) as u64,
        "div.s64" => |a, b, _| (a as i64).wrapping_div(b as i64) as u64,
        "rem.s64" => |a, b, _| (a as i64).wrapping_rem(b as i64) as u64,
        "div.u64" => |a, b, _| a / b,
        "rem.u64" => |a, b, _| a % b,

        "add.f32" => |a, b, _| bits(f(a) + f(b)),
        "add.rz.f32" => |a, b, _| bits(to_zero(f(a) as f64 + f(b) as f64)),
        "sub.f32" => |a, b, _| bits(f(a) - f(b)),
        "mul.f32" => |a, b, _| bits(f(a) * f(b)),
        "fma.rn.f32" => |a, b, c| bits(f(a).mul_add(f(b), f(c))),
        "fma.rm.f32" => |a, b, c| bits(down((f(a) as f64).mul_add(f(b) as f64, f(c) as f64))),
        "div.rn.f32" => |a, b, _| bits(f(a) / f(b)),
        "rcp.rn.f32" => |a, _, _| bits(1.0 / f(a)),
        "sqrt.rn.f32" => |a, _, _| bits(f(a).sqrt()),
        "neg.f32" => |a, _, _| bits(-f(a)),
        "abs.f32" => |a, _, _| bits(f(a).abs()),
        "copysign.f32" => |a, b, _| bits(f(b).copysign(f(a))),
        "max.f32" => |a, b, _| bits(f(a).max(f(b))),
        // approximations, of which a card's differ in the last bits
        "ex2.approx.ftz.f32" => |a, _, _| bits(flushed((flushed(f(a)) as f64).exp2() as f32)),
        "rcp.approx.ftz.f32" => |a, _, _| bits(flushed(1.0 / flushed(f(a)))),
        "rsqrt.approx.f32" => |a, _, _| bits((1.0 / (f(a) as f64).sqrt()) as f32),
        _ => return None,
    })
}
