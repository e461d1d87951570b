describe('b', () => {
  it('passes', () => {
    expect('green').to.equal('green')
  })

  it('fails', () => {
    expect('blue').to.equal('green')
  })
})
