# Read through CMAKE_PROJECT_INCLUDE before an interface package is configured.
#
# The CMake exports in the ROS wheels name header directories of the machine that built them; CMake stops at
# an imported target whose include directory does not exist. Drop those, keep the others.
function(drop_dead_include_paths)
  get_property(targets DIRECTORY PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(paths ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(NOT paths)
      continue()
    endif()
    set(alive "")
    foreach(path IN LISTS paths)
      # Generator expressions are not paths yet; they are kept as they are.
      if(path MATCHES "\\$<" OR EXISTS "${path}")
        list(APPEND alive "${path}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${alive}")
  endforeach()
endfunction()

# Deferred to the end of the directory: by then every find_package has made its imported targets.
cmake_language(DEFER CALL drop_dead_include_paths)
