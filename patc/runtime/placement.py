"""Where the threads of a team run: not on the CPU of the one that woke them.

A virtual machine's idle CPUs look busy to the kernel, which then wakes a sleeping thread on the CPU of its waker. There
the two take turns until the kernel balances the load, which takes milliseconds: longer than many a net. So a thread
that finds itself there moves away; it stays bound to no CPU.
"""

from __future__ import annotations

import base64
import platform
import zlib
from collections.abc import Mapping
from types import MappingProxyType

from patc.locks import once
from patc.runtime.linking import LinkedCode, function_address
from patc.runtime.object_code import AARCH64, X86_64, machine_number

# The number of the CPU that runs the caller (-1 where that is not known), and what leaves the CPU of that number;
# of the threads of a team only the others than 0 do.
NAMES = ("patc_current_cpu", "patc_leave_cpu")

_MASK_BYTES = 128  # of as many CPUs as the C library's type has
_CALLED = ("sched_getcpu", "sched_getaffinity", "sched_setaffinity")
LINUX_PLACEMENT = f"""
declare i32 @sched_getcpu()
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @sched_setaffinity(i32, i64, ptr)

define i32 @patc_current_cpu() {{
  %cpu = call i32 @sched_getcpu()
  ret i32 %cpu
}}

define void @patc_leave_cpu(i32 %cpu, i32 %thread) {{
  %leads = icmp eq i32 %thread, 0
  br i1 %leads, label %done, label %ask
ask:
  %own = call i32 @sched_getcpu()
  %together = icmp eq i32 %own, %cpu
  %counted = icmp ult i32 %cpu, {8 * _MASK_BYTES}
  %moves = and i1 %together, %counted
  br i1 %moves, label %find, label %done
find:
  %mask = alloca [{_MASK_BYTES} x i8], align 8
  %failed = call i32 @sched_getaffinity(i32 0, i64 {_MASK_BYTES}, ptr %mask)
  %found = icmp eq i32 %failed, 0
  br i1 %found, label %move, label %done
move:
  %place = lshr i32 %cpu, 3
  %byte = getelementptr i8, ptr %mask, i32 %place
  %number = and i32 %cpu, 7
  %short = trunc i32 %number to i8
  %bit = shl i8 1, %short
  %others = xor i8 %bit, -1
  %before = load i8, ptr %byte
  %without = and i8 %before, %others
  store i8 %without, ptr %byte
  %moved = call i32 @sched_setaffinity(i32 0, i64 {_MASK_BYTES}, ptr %mask)
  store i8 %before, ptr %byte
  %restored = call i32 @sched_setaffinity(i32 0, i64 {_MASK_BYTES}, ptr %mask)
  br label %done
done:
  ret void
}}
"""


# `LINUX_PLACEMENT` as object files, compressed: what runs a model needs no compiler. test_placement.py makes them anew.
OBJECTS = {
    X86_64: (
        "c-pIX^>JfjWMqH=Mg}_u1P=ism=SCTD9H&_8Q`%4Cj9?G<lzae-}qZ*1394{olhOZ9m5<$f;)dBtFgSnKlMQ4Zw3|y2L8zhIS!Vl"
        "cy>PXY(CcD)A<FVZeIhCF#PY+`RV_K)&r#uj-B@%558yK@UQdcr323V+hpt%Za8<a*m>^3)ZzI5igSmI9g2WQZ|Z|+#~8;r$N1R8"
        "Amt)3|5gPtFjfdK%J8srOaOXZh5>?MfFH(i<P-4a<6tlWGHsCLm%tdFd;)Du&b(~y&1^laeJuUVOcQ`c9zJvK{4oYRU@{Q1Fns)v"
        "O^%s?8AHqnh=q{EVeV4}VgW2>I78J7pt)BVhk8aF;><|$EJ)(&IK=&t#MzL<8<E7>k;E0Cv;+_{F`%b4ggD%7#mO0|De=XrC5dTi"
        "nR%Hdl~9p%Y$C}8r3?j$CCTy0rA0-lc_s01ft=LDvQ#ivuP8MqQ7@+?wW5SU4?^bUm!#^s`-SQjmn0@<Lsg_^#HSS{=B6^}6_*s1"
        "Bqjmr%3Kg_1LSAsrQ0!312iLrIWpJ*4V*bx;td(ZVF`QW@I(hJX#8-5egSOyx1gy<PcuPKGtuqSfVw{c%IARklLIN9K_CT-pFrRX"
        "4)>$0t%QgbFrkV6fYJqM;v8uF5*+UDfEs9kq>l}Y`@7N7F$`ot9eM!C-PrsO08Wvgj{"
    ),
    AARCH64: (
        "c-pIX^>JfjWMqH=MuzPS2p$47FeBIwP?7_v@*lta4<KjCKX%6-2bklpEo5OZ`CGkr<yUTopI`i$R{mvXnD~X6K?|fto<SsAk(nW6"
        "{y+Z07fcKxpP891)-y3oe84QP#VF7a^oUt_6-XTe6NBm0I_BUGE(Re@hK3*w#S>C6`4X>Eiw-6Yt_&|z3y@l5y(Lhw{UAI2oq%p|"
        "`1!Z`@CuN-1YrKF3SwZakz<tMk!Mf<@+FY`2vfu0!Y43~1;SJTVjCniGhmDm9$ACQOjB5<a?InJ%fo;ROafvShL8WT$uR>xiVjr4"
        "B&K*hm}JEeHw9uLB=s;qXdwFs3AjPk3!wQ&7>9aB9OBU6VUPwYU_%nuz#$%hB+h{(UV|jgi6lM&hqw&Pen!+#azGP@ySX?yBQ+(y"
        "IJG1(EiE%Iv!oI#l8z*zQh^XmE+}OvNGwT?PcAJgO3f>YhYRGSCYGgwxq3yZIf;5DsTCy*dU^RJse0~yp}NH-iOJbesnm@4w4%h^"
        "R0fq42EF2vqLRcUAYGXYqHTcu%)E3v2C9H2a5};S51@fF8%um5gD9vN8=5#QJXhd|cNhqTiaDT(TR`ovfb!X)sTvmduzZ(*#Z4ga"
        "0*8Om)s{lVm~iM%KojRc;}_s?{|2am21xE_#p3=hthtqe!2{~h4@mCDrXK*YM2({"
    ),
}


@once
def placement_functions() -> Mapping[str, int]:
    """Link the functions called `NAMES` and return their addresses; later calls return the same.

    Raises:
        PatcError: the C library does not let threads choose their CPUs, or the system grants no memory for code.
    """
    code = zlib.decompress(base64.b85decode(OBJECTS[machine_number(platform.machine())]))
    linked = LinkedCode(code, {name: function_address(name) for name in _CALLED})
    _kept.append(linked)
    return MappingProxyType({name: linked.address_of(name) for name in NAMES})


_kept: list[LinkedCode] = []  # the code lives as long as this
