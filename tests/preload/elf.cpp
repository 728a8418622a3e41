#include "tests/preload/elf.hpp"

#include <elf.h>

#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace kvcached::test {
namespace {

class Image {
 public:
  explicit Image(const std::string& file) {
    std::ifstream in(file, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    if (bytes_.size() < sizeof(Elf64_Ehdr) || std::memcmp(bytes_.data(), ELFMAG, SELFMAG) != 0) {
      throw std::runtime_error(file + " is no ELF file");
    }
    const auto header = at<Elf64_Ehdr>(0);
    for (unsigned i = 0; i < header.e_shnum; ++i) {
      sections_.push_back(at<Elf64_Shdr>(header.e_shoff + i * sizeof(Elf64_Shdr)));
    }
  }

  template <class T>
  T at(std::uint64_t offset) const {
    T value;
    if (offset + sizeof value > bytes_.size()) throw std::runtime_error("ELF file cut short");
    std::memcpy(&value, bytes_.data() + offset, sizeof value);
    return value;
  }

  std::string text(const Elf64_Shdr& section, std::uint64_t offset) const {
    return bytes_.data() + sections_.at(section.sh_link).sh_offset + offset;
  }

  template <class Entry, class F>
  void each(std::uint32_t type, F use) const {
    for (const auto& section : sections_) {
      if (section.sh_type != type) continue;
      for (std::uint64_t i = 0; i * sizeof(Entry) < section.sh_size; ++i) {
        use(section, at<Entry>(section.sh_offset + i * sizeof(Entry)));
      }
    }
  }

  const std::vector<Elf64_Shdr>& sections() const { return sections_; }

 private:
  std::string bytes_;
  std::vector<Elf64_Shdr> sections_;
};

std::set<std::string> versions_of(const Image& image) {
  std::set<std::string> versions;
  for (const auto& section : image.sections()) {
    if (section.sh_type != SHT_GNU_verneed) continue;
    std::uint64_t offset = section.sh_offset;
    for (std::uint64_t file = 0; file < section.sh_info; ++file) {
      const auto need = image.at<Elf64_Verneed>(offset);
      std::uint64_t place = offset + need.vn_aux;
      for (unsigned i = 0; i < need.vn_cnt; ++i) {
        const auto version = image.at<Elf64_Vernaux>(place);
        versions.insert(image.text(section, version.vna_name));
        place += version.vna_next;
      }
      offset += need.vn_next;
    }
  }
  return versions;
}

}  // namespace

Elf read_elf(const std::string& file) {
  const Image image(file);
  Elf elf;
  image.each<Elf64_Sym>(SHT_DYNSYM, [&](const auto& section, const Elf64_Sym& symbol) {
    if (symbol.st_shndx != SHN_UNDEF && ELF64_ST_BIND(symbol.st_info) != STB_LOCAL) {
      elf.exports.insert(image.text(section, symbol.st_name));
    }
  });
  image.each<Elf64_Sym>(SHT_SYMTAB, [&](const auto& section, const Elf64_Sym& symbol) {
    if (ELF64_ST_TYPE(symbol.st_info) == STT_FUNC && symbol.st_shndx != SHN_UNDEF) {
      elf.labels[symbol.st_value] = image.text(section, symbol.st_name);
    }
  });
  image.each<Elf64_Dyn>(SHT_DYNAMIC, [&](const auto& section, const Elf64_Dyn& entry) {
    if (entry.d_tag == DT_NEEDED) elf.needed.push_back(image.text(section, entry.d_un.d_val));
  });
  elf.versions = versions_of(image);
  return elf;
}

}  // namespace kvcached::test
