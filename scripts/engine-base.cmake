# Included by the engine's build (CMAKE_PROJECT_INCLUDE, see engine-wheel).  llama.cpp compiles ggml-cpu, which decodes,
# for this CPU, but ggml-base, which quantizes, for any x86-64: Q5_1 and Q8_0 are then made at about half the speed.
#
# The bytes stay the same: nothing here lets the compiler reorder sums, `-ffp-contract=off` keeps it from fusing products
# into them, and the other two only say that nobody looks at errno or at floating-point exceptions.
# Elsewhere (ARM always has FMA, and its compilers fuse by default) the bytes would change, and NEON is on anyway.

function(slmkit_engine_base)
  if(TARGET ggml-base AND GGML_NATIVE AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND NOT MSVC)
    target_compile_options(ggml-base PRIVATE -march=native -ffp-contract=off -fno-math-errno -fno-trapping-math)
  endif()
endfunction()

get_property(asked GLOBAL PROPERTY slmkit_engine_base)
if(NOT asked)  # once: this file is included for each project of the build
  set_property(GLOBAL PROPERTY slmkit_engine_base TRUE)
  cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL slmkit_engine_base)
endif()
