// A program that a benchmark starts, told by lines and answering by lines; and where things lie.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

namespace kvcached::bench {

// Of this program's file: it lies in BUILD/bench.
std::string own_file();
std::string build_folder();
// The library of that build. Throws when it is missing.
std::string library();

// A fresh folder in memory where there is one, removed at the end.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// What is different from this process's own environment; an empty value removes the variable.
using Changes = std::map<std::string, std::string>;

// Killed with the object. `name` is for complaints: every failure is an exception with it.
class Child {
 public:
  Child(std::string name, const std::vector<std::string>& command, const Changes& changes);
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  void say(const std::string& line) const;
  // Its next line, without the end.
  std::string hear(double patience_s = 30);
  std::string ask(const std::string& line, double patience_s = 30);
  // The last word of the answer, as a number.
  double number(const std::string& line, double patience_s = 30);
  void end_input();
  // If it has ended: its exit code, or minus the signal that ended it.
  std::optional<int> ended();

 private:
  std::string name_, buffer_;
  pid_t pid_ = -1;
  int to_ = -1, from_ = -1;
  std::optional<int> status_;
};

}  // namespace kvcached::bench
