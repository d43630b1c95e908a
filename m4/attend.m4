# SPDX-License-Identifier: MIT
# Probes of Attend's own.

# AT_FLAG(VARIABLE, FLAG): appends FLAG to VARIABLE when the compiler takes it without a word.
AC_DEFUN([AT_FLAG],
[AS_VAR_PUSHDEF([cached], [at_cv_flag_$2])dnl
AC_CACHE_CHECK([whether $CC takes $2], [cached],
[at_save_CFLAGS=$CFLAGS
CFLAGS="$CFLAGS -Werror $2"
AC_COMPILE_IFELSE([AC_LANG_SOURCE([[int main(void) { return 0; }]])],
                  [AS_VAR_SET([cached], [yes])], [AS_VAR_SET([cached], [no])])
CFLAGS=$at_save_CFLAGS])
AS_VAR_IF([cached], [yes], [AS_VAR_APPEND([$1], [" $2"])])
AS_VAR_POPDEF([cached])])

# AT_FLAGS(VARIABLE, FLAGS): AT_FLAG for each of a list separated by blanks.
AC_DEFUN([AT_FLAGS], [m4_foreach_w([at_flag], [$2], [AT_FLAG([$1], m4_defn([at_flag]))
])])

# AT_LINK_FLAG(VARIABLE, FLAG): the same where the linker takes it.
AC_DEFUN([AT_LINK_FLAG],
[AS_VAR_PUSHDEF([cached], [at_cv_link_$2])dnl
AC_CACHE_CHECK([whether the linker takes $2], [cached],
[at_save_LDFLAGS=$LDFLAGS
LDFLAGS="$LDFLAGS $2"
AC_LINK_IFELSE([AC_LANG_SOURCE([[int main(void) { return 0; }]])],
               [AS_VAR_SET([cached], [yes])], [AS_VAR_SET([cached], [no])])
LDFLAGS=$at_save_LDFLAGS])
AS_VAR_IF([cached], [yes], [AS_VAR_APPEND([$1], [" $2"])])
AS_VAR_POPDEF([cached])])

# AT_ISA(NAME, FLAGS, HEADER, STATEMENT): can this compiler make code for the instruction set?  Sets
# at_isa_NAME to yes or no, the conditional SIMD_NAME and, for simd/select.c, HAVE_SIMD_NAME.
# It says nothing about the machine that will run the program: that is asked at run time.
AC_DEFUN([AT_ISA],
[m4_pushdef([AT_NAME], m4_toupper([$1]))dnl
AC_ARG_ENABLE([$1], [AS_HELP_STRING([--disable-$1], [leave out kernels for $1])],
              [AS_VAR_IF([enable_$1], [no], [at_cv_isa_$1=no])])
AC_CACHE_CHECK([whether $CC can compile for $1], [at_cv_isa_$1],
[at_save_CFLAGS=$CFLAGS
CFLAGS="$CFLAGS $2"
AC_COMPILE_IFELSE([AC_LANG_PROGRAM([[#include <$3>]], [[$4]])],
                  [at_cv_isa_$1=yes], [at_cv_isa_$1=no])
CFLAGS=$at_save_CFLAGS])
AS_VAR_IF([at_cv_isa_$1], [yes], [AC_DEFINE([HAVE_SIMD_]AT_NAME, [1], [kernels for $1 are built])])
AM_CONDITIONAL([SIMD_]AT_NAME, [test "$at_cv_isa_$1" = yes])
m4_popdef([AT_NAME])])

# AT_SWITCH(NAME, WHAT): --disable-NAME leaves WHAT out: the conditional NAME in capitals is false, and
# AT_NO_NAME is defined.
AC_DEFUN([AT_SWITCH],
[m4_pushdef([AT_NAME], m4_toupper([$1]))dnl
AC_ARG_ENABLE([$1], [AS_HELP_STRING([--disable-$1], [leave out $2])], [], [enable_$1=yes])
AS_VAR_IF([enable_$1], [no], [AC_DEFINE([AT_NO_]AT_NAME, [1], [$1 is left out])])
AM_CONDITIONAL(AT_NAME, [test "$enable_$1" != no])
m4_popdef([AT_NAME])])
